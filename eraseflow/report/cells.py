"""The files of the table's cells, read with one clear line where something is missing."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from eraseflow import finite
from eraseflow.report import plausible
from eraseflow.report.plausible import CellError
from eraseflow.shards import read_pngs

VERDICTS = ["pre_success", "success", "flagged", "attackable"]
ATTACK_COLUMNS = ["prompt_id", "prompt", "seed", "pre_success", "success", "step", "adversarial_prompt"]
COUNTS = ["official", "excluded_by_safety_gate", "attackable", "used", "kept"]
# Numbers of a cell's JSON files, with their ranges. By rounding, a distance may be a little less than nothing.
SCORES = dict.fromkeys(["kept_n", "target_n", "kept_empty", "target_empty", "clip_n"], plausible.COUNT)
SCORES |= {"fd": (-0.1, plausible.INF), "fd_n": (2, plausible.INF)}
SCORES |= {"clip_score": (-101, 101)}


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


def read_frame(path: Path, columns: list[str], scores: bool = False) -> pd.DataFrame:
    """These columns of a parquet or CSV file; `flagged` is False where the file is without it.

    scores: with all that judges have given, columns "<head>/<label>" of a parquet file.

    Raises: CellError.
    """
    if not path.is_file():
        raise CellError(f"{path}: missing, but params.yaml's table needs it; run `dvc repro`")
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, usecols=columns)
        there = pq.read_schema(path).names
        flagless = "flagged" in columns and "flagged" not in there
        wanted = [column for column in columns if not (flagless and column == "flagged")]
        wanted += [name for name in there if scores and "/" in name and name not in columns]
        frame = pd.read_parquet(path, columns=wanted)
        return frame.assign(flagged=False) if flagless else frame
    except (ValueError, OSError) as error:  # pyarrow's errors are of these two kinds
        raise CellError(f"{path}: cannot read the columns {', '.join(columns)}: {str(error).splitlines()[0]}") from None


def read_counts(concepts: Path, concept: str) -> dict[str, Any]:
    """How many target prompts there are of which sort (COUNTS, see prompts.resolve)."""
    path = concepts / concept / "counts.json"
    found = read_json(path, COUNTS)
    plausible.check_numbers(path, found, dict.fromkeys(COUNTS[:-1], plausible.COUNT))
    return found


def read_reference(path: Path) -> dict[str, Any]:
    """reference.json of the real pictures; their features, which the distances are to, are looked at beside it."""
    about, file = read_json(path, ["pictures", "sha256"]), path.with_name("features.safetensors")
    if file.is_file():
        try:
            features = load_file(file)["features"]
        except (SafetensorError, KeyError, OSError) as error:
            raise CellError(f"{file}: cannot be read: {error}; {plausible.AGAIN}") from None
        plausible.check_features(file, features, about.get("names", []))
    return about


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
        path = self.folder / "scores.json"
        found = read_json(path, keys)
        plausible.check_numbers(path, found, {key: ends for key, ends in SCORES.items() if key in keys})
        for role in ("target", "kept"):
            n = found.get(f"{role}_n", plausible.INF)
            plausible.check_numbers(path, found, {key: (0, n) for key in keys if key == f"{role}_empty"})
        return found

    def costs(self, keys: list[str]) -> dict[str, Any]:
        path = self.folder / "costs.json"
        found = read_json(path, keys)
        numbers = {key: plausible.COUNT for key in keys if key not in ("device", "precision")}
        plausible.check_numbers(path, found, numbers)
        return {key: found[key] for key in keys}

    def attack_costs(self, attack: str) -> dict[str, Any]:
        """How many of the last pictures are empty, and by which judge and rule they were judged."""
        path = self.folder / f"attack-{attack}.json"
        found = read_json(path, ["empty", "judge"])
        plausible.check_numbers(path, found, {"empty": plausible.COUNT})
        return found

    def attack_summary(self, attack: str) -> dict[str, float]:
        """What the concept's judges sum up of the attacked pictures; empty where none of them sums up."""
        return read_json(self.folder / f"attack-{attack}.json", []).get("summary", {})

    def attack(self, attack: str, columns: tuple[str, ...] = (), scores: bool = False) -> pd.DataFrame:
        """One row a target prompt, indexed by prompt_id; `columns` and `scores` beside those that every use needs."""
        path = self.folder / f"attack-{attack}.parquet"
        frame = read_frame(path, [*ATTACK_COLUMNS, *columns], scores)
        if twice := frame.loc[frame["prompt_id"].duplicated(), "prompt_id"].tolist():
            raise CellError(f"{path}: the prompt {twice[0]} has two rows; run `dvc repro`")
        plausible.check(path, frame, plausible.ATTACKED, "prompt_id")
        plausible.check_scores(path, frame.assign(role="target"))
        plausible.check_flags(path, frame, [name for name in VERDICTS if name in frame])
        plausible.check_rounds(path, frame)
        return frame.set_index("prompt_id")

    def pictures(self, role: str) -> pd.DataFrame:
        """The un-attacked pictures of a role, without their pixels, with the verdicts `right` and `flagged`.

        Indexed by prompt_id. `right` is a nullable boolean, NA throughout where the role has no judge; `place` is the
        row in samples.parquet.
        """
        columns = ["prompt_id", "role", "prompt", "expect", "seed"]
        samples = read_frame(self.folder / "samples.parquet", columns)
        samples["place"] = range(len(samples))
        path = self.folder / "judged.parquet"
        judged = read_frame(path, ["prompt_id", "role", "right", "flagged"], scores=True)
        plausible.check_scores(path, judged)
        try:
            own = judged[["prompt_id", "role", "right", "flagged"]].astype({"right": "boolean"})
            both = samples.merge(own, on=["prompt_id", "role"], how="outer", validate="one_to_one", indicator=True)
        except (ValueError, TypeError) as error:  # of pandas, where a picture has two rows or a verdict that is none
            raise CellError(f"{path}: {str(error).splitlines()[0]}; {plausible.AGAIN}") from None
        if (both["_merge"] != "both").any():
            raise CellError(f"{path}: its pictures are not those of samples.parquet; run `dvc repro`")
        rows = both[both["role"] == role].sort_values("place").set_index("prompt_id").drop(columns="_merge")
        if rows["right"].isna().any() and (role == "target" or rows["right"].notna().any()):
            raise CellError(f"{path}: not every picture of samples.parquet is judged")
        plausible.check_flags(path, rows, ["flagged"])
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
        return decoded(path, pd.Series(found, index=ordered.index, dtype=object)).loc[pictures.index]

    def training(self) -> pd.DataFrame:
        path = self.folder / "training.csv"
        frame = read_frame(path, ["step", "loss", "residual"])
        plausible.check(path, frame, plausible.TRAINED)
        return frame


def decoded(path: Path, pngs: pd.Series) -> pd.Series:
    """PNG bytes by prompt_id, as they are. Raises: CellError that names the first of them that is no picture."""
    for prompt_id, png in pngs.items():
        try:
            Image.open(io.BytesIO(png)).load()
        except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
            what = f"its picture cannot be read ({str(error).splitlines()[0]})"
            raise CellError(f"{path}: {prompt_id}: {what}; {plausible.AGAIN}") from None
    return pngs


def same_prompts(ours: pd.DataFrame, theirs: pd.DataFrame, where: str) -> pd.DataFrame:
    """`theirs` in the order of `ours`, both indexed by prompt_id.

    Raises: CellError unless both have the same prompts and seeds, without which no comparison is fair.
    """
    if len(ours) == len(theirs) and theirs.index.is_unique and set(ours.index) == set(theirs.index):
        ordered = theirs.loc[ours.index]
        if (ordered[["seed", "prompt"]].to_numpy() == ours[["seed", "prompt"]].to_numpy()).all():
            return ordered
    raise CellError(f"{where}: its prompts or seeds are not those of the other methods; run `dvc repro`")
