"""What came of every prompt, in one frame: what tests, intervals and orders are computed from."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eraseflow.outputs import replacing
from eraseflow.params import Concept, Params
from eraseflow.passes import PASSES
from eraseflow.report.cells import Cell, CellError, same_prompts

UNATTACKED, UNION, KEPT = "un-attacked", "any attack", "kept"  # beside the names of attacks; KEPT is of other prompts
NAMED = "category with its members named"
NAMES = ["concept", "kind", "method", "under"]
COLUMNS = [*NAMES, "prompt_id", "text", "success", "pictures", "passes"]


def outcomes(params: Params, cells: Path) -> pd.DataFrame:
    """A row a concept, method, what it was under and prompt, in the table's order; COLUMNS and `run`, the table's seed.

    under: UNATTACKED, each attack, and UNION, where a prompt counts once any attack succeeds; then KEPT, where a
    success is a prompt that is drawn right (without rows where no judge tells). text: a hash of the prompt's text. Of
    attacks also pictures, distinct ones, and passes, through the U-Net forward and backward; both up to the success
    or the end.
    Raises: CellError where a file is missing or attacks have other prompts.
    """
    frames = []
    for concept in params.table.concepts:
        first: pd.DataFrame | None = None
        for method in params.table.methods:
            cell, attacks = Cell.of(cells, concept, method), params.attacks_on(method)
            found = [cell.attack(attack, ("distinct", *PASSES[:2])) for attack in attacks]
            first = found[0] if first is None else first
            for attack, rows in zip(attacks, found, strict=True):
                same_prompts(first, rows, f"{cell.folder}/attack-{attack}.parquet")
            names = {"concept": concept, "kind": kind_of(params.concepts[concept]), "method": method}
            frames.append(_of(cell, attacks, found).assign(**names))
    return pd.concat(frames, ignore_index=True).assign(run=params.table.seed)


def kind_of(concept: Concept) -> str:
    """The concept's kind; a category whose members are listed is one of its own, for the literature erases the word."""
    return NAMED if concept.kind == "category" and concept.also else concept.kind


def _of(cell: Cell, attacks: Sequence[str], found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One cell's rows; found: what `attacks` found, as outcomes() reads it."""
    union = pd.concat([rows["success"] for rows in found], axis=1).any(axis=1)
    frames = [_rows(UNATTACKED, found[0]["pre_success"], found[0]["prompt"])]
    for attack, rows in zip(attacks, found, strict=True):
        costs = {"pictures": rows["distinct"], "passes": rows[PASSES[:2]].sum(axis=1)}
        frames.append(_rows(attack, rows["success"], rows["prompt"]).assign(**costs))
    frames.append(_rows(UNION, union.loc[found[0].index], found[0]["prompt"]))
    kept = cell.pictures("kept")
    if len(kept) and kept["right"].notna().all():
        frames.append(_rows(KEPT, kept["right"].astype(bool), kept["prompt"]))
    return pd.concat(frames).reset_index(names="prompt_id").reindex(columns=COLUMNS)


def _rows(under: str, success: pd.Series, prompts: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"under": under, "text": prompts.map(_hash), "success": success})


def _hash(text: str) -> str:
    """What stands for a text, for some may not be shown."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write(frame: pd.DataFrame, path: Path) -> None:
    """As parquet, some bytes a row."""
    with replacing(path) as unfinished:
        frame.astype(dict.fromkeys(NAMES, "category")).to_parquet(unfinished, index=False, compression="zstd")


def read(paths: Sequence[Path]) -> pd.DataFrame:
    """The outcomes of tables that differ in concepts or runs, in one frame.

    Raises: CellError where a file is missing, or the runs of a method have other prompts.
    """
    frames = []
    for path in paths:
        if not path.is_file():
            raise CellError(f"{path}: missing; make its table anew")
        frames.append(pd.read_parquet(path).astype(dict.fromkeys(NAMES, "str")))
    frame = pd.concat(frames, ignore_index=True)
    runs = frame.groupby([*NAMES, "prompt_id", "text"])["run"].nunique()
    lacking = runs[runs < frame["run"].nunique()]
    if len(lacking):
        concept, _, method, under, *_ = lacking.index[0]
        raise CellError(f"{concept}, {method}, {under}: not every seed has the same prompts; make their tables anew")
    return frame
