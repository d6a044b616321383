"""Seconds and peak memory of the table's trainings and attacks, from timings.csv (see eraseflow/timings.py)."""

import math
from pathlib import Path

import pandas as pd

from eraseflow import timings
from eraseflow.params import Params
from eraseflow.report.plausible import CellError

NOT = "not measured"
COLUMNS = ["train_seconds", "attack_seconds_per_prompt"]  # which `beside` adds to the comparison table


def measured(params: Params, cells: Path, path: Path) -> pd.DataFrame:
    """The rows of a timings.csv that are of the table's results as these are now, with the columns timings.COLUMNS.

    seconds and peak_memory_bytes are numbers, the latter NaN where it is not known; the rest is text.
    Raises: CellError (one line) where a result is missing or a number is none.
    """
    try:
        found = timings.of_table(params.table, cells, timings.read(path).to_dict("records"))
    except FileNotFoundError as error:
        raise CellError(f"{error.filename}: missing, but params.yaml's table needs it; run `dvc repro`") from None
    for column in ("seconds", "peak_memory_bytes"):
        numbers = pd.to_numeric(found[column], errors="coerce").astype(float)
        known = (found[column] != "") | (column == "seconds")
        wrong = known & ~((numbers >= 0) & (numbers < math.inf))
        if wrong.any():
            row = found[wrong].iloc[0]
            where = " ".join(row[timings.CELL]).strip()
            what = f"expected a number from 0 on, found {row[column]!r}; `python -m eraseflow timings` measures nothing"
            raise CellError(f"{path}: {where}: {column}: {what}, but writes the file anew")
        found[column] = numbers
    return found


def beside(frame: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The comparison table with COLUMNS, NaN where nothing was measured; an attack's are by attacked prompt."""
    seconds = found.set_index(timings.CELL)["seconds"].to_dict()
    cells = list(frame[["concept", "method", "attack"]].itertuples(index=False, name=None))
    attacked = (frame["n_prompts"] - frame["pre_successes"]).astype(float)
    return frame.assign(
        train_seconds=[seconds.get((concept, method, ""), math.nan) for concept, method, _ in cells],
        attack_seconds_per_prompt=[seconds.get(cell, math.nan) for cell in cells] / attacked.where(attacked > 0),
    )


def said(params: Params, found: pd.DataFrame) -> list[str]:
    """How many trainings and attacks are measured, and where and when: a sentence for each kind of machine."""
    table = params.table
    every = len(table.concepts) * sum(1 + len(params.attacks_on(method)) for method in table.methods)
    sentences = [f"{len(found)} of {every} trainings and attacks are measured."]
    kind = ["machine", "cores", "precision", "torch"]
    for (machine, cores, precision, torch), rows in found.groupby(kind, sort=False):
        days = sorted(set(rows["date"].str[:10]))
        commits = [f"commit {commit[:7]}" for commit in dict.fromkeys(rows["commit"]) if commit]
        load = pd.to_numeric(rows["load"], errors="coerce").max()  # NaN where no row has one
        when = " to ".join(dict.fromkeys([days[0], days[-1]]))
        sentences.append(
            f"{len(rows)} on {machine}, {cores} core{'s' * (cores != '1')}, {precision}, PyTorch {torch}, {when}"
            + f", by the code of {', '.join(commits)}" * bool(commits)
            + f"; up to {load:g} processes ran at a time (load)" * (not math.isnan(load))
            + "."
        )
    return sentences
