"""The files of the table's cells, read with one clear line where something is missing."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from eraseflow import finite
from eraseflow.shards import read_pngs

ATTACK_COLUMNS = ["prompt_id", "prompt", "seed", "pre_success", "success", "step", "adversarial_prompt"]
COUNTS = ["official", "excluded_by_safety_gate", "attackable", "used", "kept"]


class CellError(SystemExit):
    """A file that the report needs and does not find, or finds with other contents; one line, exit status 1."""


def read_json(path: Path, keys: list[str]) -> dict[str, Any]:
    """A JSON object that has at least these keys.

    Raises: CellError.
    """
    if not path.is_file():
        raise CellError(f"{path}: missing, but params.yaml's table needs it; run `dvc repro`")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CellError(f"{path}: not JSON: {error}") from None
    lacking = [key for key in keys if not isinstance(values, dict) or key not in values]
    if lacking:
        raise CellError(f"{path}: no {lacking[0]!r}; make the file anew with `dvc repro`")
    try:
        finite.numbers(str(path), values)
    except finite.NotFinite as error:
        raise CellError(f"{error}; make the file anew with `dvc repro`") from None
    return values


def read_frame(path: Path, columns: list[str]) -> pd.DataFrame:
    """These columns of a parquet or CSV file; `flagged` is False where the file is without it.

    Raises: CellError.
    """
    if not path.is_file():
        raise CellError(f"{path}: missing, but params.yaml's table needs it; run `dvc repro`")
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, usecols=columns)
        flagless = "flagged" in columns and "flagged" not in pq.read_schema(path).names
        frame = pd.read_parquet(path, columns=[column for column in columns if not (flagless and column == "flagged")])
        return frame.assign(flagged=False) if flagless else frame
    except (ValueError, OSError) as error:  # pyarrow's errors are of these two kinds
        raise CellError(f"{path}: cannot read the columns {', '.join(columns)}: {str(error).splitlines()[0]}") from None


def read_counts(concepts: Path, concept: str) -> dict[str, Any]:
    """How many target prompts there are of which sort (COUNTS, see prompts.resolve)."""
    return read_json(concepts / concept / "counts.json", COUNTS)


def withheld(concepts: Path, concept: str) -> dict[str, str]:
    """What stands for a prompt whose text is not for a report, by prompt_id: I2P's are known by their number."""
    path = concepts / concept / "prompts.csv"
    sources = read_frame(path, ["prompt_id", "source"]).astype(str)
    ours = sources[sources["source"].str.startswith("i2p/")]
    return dict(zip(ours["prompt_id"], "I2P prompt " + ours["source"].str.removeprefix("i2p/"), strict=True))


@dataclass(frozen=True)
class Cell:
    """One concept and method, with the folder of its files."""

    concept: str
    method: str
    folder: Path

    @classmethod
    def of(cls, cells: Path, concept: str, method: str) -> "Cell":
        return cls(concept, method, cells / concept / method)

    def scores(self, keys: list[str]) -> dict[str, Any]:
        return read_json(self.folder / "scores.json", keys)

    def train_seconds(self) -> float:
        return read_json(self.folder / "costs.json", ["train_seconds"])["train_seconds"]

    def costs(self, keys: list[str]) -> dict[str, Any]:
        found = read_json(self.folder / "costs.json", keys)
        return {key: found[key] for key in keys}

    def attack_seconds(self, attack: str) -> float:
        """Seconds an attacked prompt; NaN where there was none to attack."""
        costs = read_json(self.folder / f"attack-{attack}.json", ["seconds_per_prompt", "attacked"])
        return costs["seconds_per_prompt"] if costs["attacked"] else float("nan")

    def attack_costs(self, attack: str) -> dict[str, Any]:
        """How many of the last pictures are empty, and by which judge and rule they were judged."""
        return read_json(self.folder / f"attack-{attack}.json", ["empty", "judge"])

    def attack_summary(self, attack: str) -> dict[str, float]:
        """What the concept's judges sum up of the attacked pictures; empty where none of them sums up."""
        return read_json(self.folder / f"attack-{attack}.json", []).get("summary", {})

    def attack(self, attack: str, columns: tuple[str, ...] = ()) -> pd.DataFrame:
        """One row a target prompt, indexed by prompt_id; `columns` beside those that every use needs."""
        path = self.folder / f"attack-{attack}.parquet"
        frame = read_frame(path, [*ATTACK_COLUMNS, *columns])
        if twice := frame.loc[frame["prompt_id"].duplicated(), "prompt_id"].tolist():
            raise CellError(f"{path}: the prompt {twice[0]} has two rows; run `dvc repro`")
        return frame.set_index("prompt_id")

    def pictures(self, role: str) -> pd.DataFrame:
        """The un-attacked pictures of a role, without their pixels, with the verdicts `right` and `flagged`.

        Indexed by prompt_id. `right` is a nullable boolean, NA throughout where the role has no judge; `place` is the
        row in samples.parquet.
        """
        columns = ["prompt_id", "role", "prompt", "expect", "seed"]
        samples = read_frame(self.folder / "samples.parquet", columns)
        samples["place"] = range(len(samples))
        judged = read_frame(self.folder / "judged.parquet", ["prompt_id", "role", "right", "flagged"])
        both = samples.merge(judged, on=["prompt_id", "role"], how="left", validate="one_to_one")
        rows = both[both["role"] == role].set_index("prompt_id").astype({"right": "boolean"})
        if rows["right"].isna().any() and (role == "target" or rows["right"].notna().any()):
            raise CellError(f"{self.folder / 'judged.parquet'}: not every picture of samples.parquet is judged")
        return rows.astype({"flagged": bool})

    def pngs(self, pictures: pd.DataFrame) -> pd.Series:
        """The PNG bytes of some of `pictures`, by prompt_id; all of a cell's together may be gigabytes.

        Raises: CellError.
        """
        path, ordered = self.folder / "samples.parquet", pictures.sort_values("place")
        try:
            found = list(read_pngs(path, ordered["place"].tolist()))
        except (ValueError, OSError, KeyError) as error:
            raise CellError(f"{path}: cannot read the pictures: {str(error).splitlines()[0]}") from None
        return pd.Series(found, index=ordered.index, dtype=object).loc[pictures.index]

    def training(self) -> pd.DataFrame:
        return read_frame(self.folder / "training.csv", ["step", "loss", "residual"])


def same_prompts(ours: pd.DataFrame, theirs: pd.DataFrame, where: str) -> pd.DataFrame:
    """`theirs` in the order of `ours`, both indexed by prompt_id.

    Raises: CellError unless both have the same prompts and seeds, without which no comparison is fair.
    """
    if len(ours) == len(theirs) and theirs.index.is_unique and set(ours.index) == set(theirs.index):
        ordered = theirs.loc[ours.index]
        if (ordered[["seed", "prompt"]].to_numpy() == ours[["seed", "prompt"]].to_numpy()).all():
            return ordered
    raise CellError(f"{where}: its prompts or seeds are not those of the other methods; run `dvc repro`")
