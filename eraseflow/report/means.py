"""Rates over several seeds: the mean and the seeds' range first, then the interval, which knows of texts and seeds."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from eraseflow.metrics.rates import Rate
from eraseflow.report import collapsed
from eraseflow.report.outcomes import KEPT, UNATTACKED, UNION
from eraseflow.report.readable import markdown_table

CELL = ["concept", "kind", "method", "under"]
COLUMNS = [*CELL, "runs", "n", "texts", "mean", "run_low", "run_high", "low", "high", "letters", "values", "collapsed"]
TITLES = {UNATTACKED: "un-attacked ↓", UNION: "any attack ↓", KEPT: "kept right ↑"}
NOTE = (
    "Mean over the seeds in percent, in parentheses the seeds' lowest and highest, in brackets the 95 % interval: "
    "Wilson's, with the effective number of prompts that texts and seeds leave. Methods that share a letter in a "
    "column are not told apart (McNemar's exact test by text, Holm's correction over the whole table, and each seed "
    "in the same direction); a has the lowest rate. Distance and CLIP score: mean and the seeds' range."
)


def means(outcomes: pd.DataFrame, tables: Sequence[pd.DataFrame], letters: pd.Series) -> pd.DataFrame:
    """A row a concept, method and thing it was under, and for its distance and CLIP score; COLUMNS.

    outcomes: outcomes.read() of several runs; tables: their table.csv; letters: pairs.letters(). mean, run_low,
    run_high: of the runs' own values, rates as fractions 0..1; low, high: the interval of the mean, NaN for scores.
    values: each run's numerator or score, by spaces. collapsed: in how many runs it draws mostly empty
    pictures, un-attacked.
    """
    rows = []
    frame = pd.concat(tables)
    scores = {frame["fd_name"].iloc[0]: "fd", frame["clip_name"].iloc[0]: "clip_score"}
    for (concept, kind, method), of in outcomes.groupby(CELL[:3], sort=False):
        mine = frame[(frame["concept"] == concept) & (frame["method"] == method)].drop_duplicates("run")
        empty = sum(collapsed.has_collapsed(row, collapsed.UNATTACKED) for row in mine.to_dict("records"))
        names = {"concept": concept, "kind": kind, "method": method, "collapsed": empty}
        for under, cell in of.groupby("under", sort=False):
            rate = Rate.of(cell["success"], cell["text"], cell["run"])
            runs = cell.groupby("run")["success"]
            found: dict[str, Any] = {"n": rate.n, "texts": cell["text"].nunique(), "low": rate.low, "high": rate.high}
            found |= {"letters": letters.get((concept, under, method), ""), "values": _joined(runs.sum())}
            rows.append(names | {"under": under} | found | _spread(runs.mean()))
        for name, column in scores.items():
            found = {"under": name, "letters": "", "values": _joined(mine[column])}
            rows.append(names | found | _spread(mine[column]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _spread(values: pd.Series) -> dict[str, float]:
    return {"runs": len(values), "mean": values.mean(), "run_low": values.min(), "run_high": values.max()}


def _joined(values: pd.Series) -> str:
    return " ".join(f"{value:g}" for value in values)


def readable(found: pd.DataFrame, concept: str) -> pd.DataFrame:
    """One concept's rows as text, a row a method: such as `12 (8-15) [6-21] ab`."""
    of = found[found["concept"] == concept]
    first = of.drop_duplicates("method")
    marks = [
        f" (collapsed with {row.collapsed} of {row.runs} seeds)" * bool(row.collapsed) for row in first.itertuples()
    ]
    columns = {"Method": [name + mark for name, mark in zip(first["method"], marks, strict=True)]}
    for under, rows in of.groupby("under", sort=False):  # not each attack is on every method
        lower = rows["low"].notna().all() or str(under).startswith("FD")
        title = TITLES.get(str(under), f"{under} {'↓' if lower else '↑'}")
        said = dict(zip(rows["method"], map(_said, rows.to_dict("records")), strict=True))
        columns[title] = [said.get(method, "") for method in first["method"]]
    return pd.DataFrame(columns)


def _said(row: dict) -> str:
    if pd.isna(row["low"]):
        return f"{row['mean']:.3g} ({row['run_low']:.3g}-{row['run_high']:.3g})"
    mean, *ends = (f"{100 * row[name]:.0f}" for name in ("mean", "run_low", "run_high", "low", "high"))
    return f"{mean} ({ends[0]}-{ends[1]}) [{ends[2]}-{ends[3]}] {row['letters']}".strip()


def markdown(found: pd.DataFrame) -> list[str]:
    """A section a concept."""
    concepts = found.drop_duplicates("concept")[["concept", "kind"]].itertuples(index=False)
    return [f"## {name} ({kind})\n\n{markdown_table(readable(found, name))}" for name, kind in concepts]
