"""`make full`'s reports side by side: the lists of all concepts in one file each, and a page that leads to theirs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from eraseflow import timings, verdict
from eraseflow.outputs import write_bytes, write_csv, write_text
from eraseflow.params import Params
from eraseflow.project import files
from eraseflow.report import pareto, plots
from eraseflow.report.cells import CellError
from eraseflow.report.data_uri import data_uri
from eraseflow.report.readable import at_a_glance
from eraseflow.report.table import check_networks
from eraseflow.report.templates import template

# What each concept's report has, by its name here.
LISTS = {
    "table.csv": "table.csv",
    "costs.csv": "costs.csv",
    "pareto.csv": "pareto.csv",
    "order.csv": "order.csv",
    "transfer.csv": "transfer/matrices.csv",
}


def write(params: Params, tuned_on: Sequence[str], out: Path) -> None:
    """From the reports in `out`, a folder a concept: LISTS, timings.csv, the figure and index.html.

    tuned_on: the concepts on which settings were tuned. Concepts of params' table without a folder, or with a table
    of an earlier version, are left out. The page says which these and those are.
    Raises: CellError with one line where a file cannot be read, or tables that were made at different times do not
    compare.
    """
    there = [name for name in params.table.concepts if _current(out / name / "table.csv")]
    lists = {whole: [_read(out / name / part, dtype=str, keep_default_na=False) for name in there]
             for whole, part in LISTS.items()}  # fmt: skip
    check_networks(pd.concat(lists["table.csv"]), str(out))
    for whole, rows in lists.items():
        write_csv(pd.concat(rows), out / whole)
    frame = _read(out / "table.csv")
    write_csv(pd.concat([timings.read(out / name / timings.FILE) for name in there]), out / timings.FILE)
    missing = [name for name in params.table.concepts if name not in there]
    params = _of(params, there, frame)
    for kind in ("png", "svg"):
        write_bytes(plots.encode(plots.fid_vs_attack(params, frame), kind), out / f"fid_vs_attack.{kind}")
    write_text(_page(params, missing, frame, out, tuned_on), out / "index.html")


def _current(path: Path) -> bool:
    """Whether this table is there, with the columns that today's figures and page need."""
    return path.is_file() and {"pre_effective", "any_successes", "any_effective"} <= set(_read(path, nrows=0))


def _read(path: Path, **form: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(path, **form)
    except (OSError, ValueError) as error:  # pandas' errors are of the second kind
        what = f"cannot be read ({str(error).splitlines()[0]}); take the folder away, and `full` makes it anew"
        raise CellError(f"{path}: {what}") from None


def _of(params: Params, concepts: Sequence[str], frame: pd.DataFrame) -> Params:
    """With these concepts, and the methods and attacks that a table has as it was published, though they have left."""
    names: dict[str, list[str]] = {"concepts": list(concepts)}
    for column in ("method", "attack"):
        names[f"{column}s"] = [*dict.fromkeys([*getattr(params.table, f"{column}s"), *frame[column]])]
    return params.model_copy(update={"table": params.table.model_copy(update=names)})


def _page(params: Params, missing: Sequence[str], frame: pd.DataFrame, out: Path, tuned_on: Sequence[str]) -> str:
    fronts = _read(out / "pareto.csv", keep_default_na=False)
    for name in ("dominated_by", "overlapping"):
        fronts[name] = fronts[name].astype(str).str.split()
    # Text, where one of the tables is older than the column.
    fronts["collapsed"] = fronts.get("collapsed", pd.Series(False, fronts.index)).astype(str) == "True"
    figures = {columns: plots.fid_vs_attack(params, frame, columns) for columns in (1, 3)}
    return template("whole.html.j2").render(
        params=params,
        missing=missing,
        figures={
            columns: data_uri(plots.encode(figure, "svg"), "image/svg+xml") for columns, figure in figures.items()
        },
        concepts=[
            _concept(params, name, frame, fronts) | {"commit": files.made_by(out / name)}
            for name in params.table.concepts
        ],
        tuned_on=tuned_on,
        caution=pareto.CAUTION,
        hours=seconds(frame, timings.read(out / timings.FILE)) / 3600,
    )


def seconds(frame: pd.DataFrame, timed: pd.DataFrame) -> float:
    """What the trainings and attacks of the table took when they were last measured; NaN where not all of them were."""
    attacks = frame[timings.CELL]
    cells = pd.concat([attacks.assign(attack="").drop_duplicates(), attacks])
    taken = timed.drop_duplicates(timings.CELL, keep="last").set_index(timings.CELL)["seconds"].astype(float)
    return float(taken.reindex(pd.MultiIndex.from_frame(cells)).sum(skipna=False))


def _concept(params: Params, name: str, frame: pd.DataFrame, fronts: pd.DataFrame) -> dict:
    block, rows = params.concepts[name], frame[frame["concept"] == name]
    return {
        "name": name,
        "block": block,
        "judge": verdict.rule(block.judge).name,
        "glance": at_a_glance(frame, name),
        "sentences": [*pareto.unerased(rows), *pareto.sentences(fronts[fronts["concept"] == name])],
    }
