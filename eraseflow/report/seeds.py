"""How much the seed decides: the rows that tables of several seeds share, side by side."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eraseflow.metrics.rates import Rate
from eraseflow.outputs import write_csv, write_text
from eraseflow.report import collapsed
from eraseflow.report.cells import CellError
from eraseflow.report.readable import markdown_table

CELL = ["concept", "method", "attack"]
# Each rate with its numerator, its denominator and its title.
RATES = {
    "pre_asr": ("pre_successes", "n_prompts", "ASR before attack ↓ ({judge})"),
    "asr": ("asr_successes", "n_prompts", "ASR ↓ ({judge})"),
    "kept_accuracy": ("kept_right", "kept_n", "Kept prompts right ↑ ({kept_judge})"),
}
SAME = ["n_prompts", "judge", "kept_n", "kept_judge", "fd_name"]  # scores compare only where these do not differ
INTRODUCTION = (
    "Each row was trained, sampled and attacked with {count} seeds: the mean, and after it each seed's own value. "
    "The 95 % Wilson intervals, in percent, tell of the prompts, the differences between seeds of the training."
)


def seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Of the cells that are in every table, as table.csv has them: each score's mean and its values, seed by seed.

    A row a cell, in the first table's order. Columns <score>_mean, _low and _high (the extremes), and <score>_values:
    by spaces the distance, or a rate's numerator; the denominators are n_prompts and kept_n. collapsed: with how many
    seeds it draws mostly empty pictures.
    Raises: CellError where a cell's prompts, judge or network differ between tables.
    """
    rows = pd.concat(tables, ignore_index=True)
    rows = rows.assign(collapsed=collapsed.flags(rows))
    rows = rows[rows.groupby(CELL).asr.transform("size") == len(tables)]
    cells = rows.groupby(CELL, sort=False)
    for name in SAME:
        if (cells[name].nunique(dropna=False) > 1).any():
            what = "`python -m eraseflow full` makes them of one code and one params.yaml"
            raise CellError(f"{name} differs between the tables of the seeds; {what}")
    found = cells[SAME].first()
    for score in [*RATES, "fd"]:
        found[[f"{score}_mean", f"{score}_low", f"{score}_high"]] = cells[score].agg(["mean", "min", "max"])
        values = RATES[score][0] if score in RATES else score
        found[f"{score}_values"] = cells[values].agg(lambda each: " ".join(f"{value:g}" for value in each))
    found["collapsed"] = cells["collapsed"].sum()
    return found.reset_index()


def markdown(found: pd.DataFrame, count: int) -> str:
    """The same for people, a section a concept."""
    parts = ["# How much the seed decides", INTRODUCTION.format(count=count)]
    for concept, rows in found.groupby("concept", sort=False):
        text = rows[["method", "attack"]].rename(columns=str.capitalize)
        marks = [f" ({collapsed.MARK} with {of} of {count} seeds)" * bool(of) for of in rows["collapsed"]]
        text["Method"] += marks
        for rate, (_, denominator, title) in RATES.items():
            text[title.format(**rows.iloc[0])] = [
                f"{100 * row[f'{rate}_mean']:.0f} %: "
                + ", ".join(str(Rate(int(value), row[denominator])) for value in row[f"{rate}_values"].split())
                for row in rows.to_dict("records")
            ]
        text[f"{rows.fd_name.iloc[0]} ↓"] = [
            f"{mean:.3g} ({', '.join(f'{float(value):.3g}' for value in values.split())})"
            for mean, values in zip(rows.fd_mean, rows.fd_values, strict=True)
        ]
        parts.append(f"## {concept}\n\n{markdown_table(text)}")
    return "\n\n".join(parts) + "\n"


def write(tables: Sequence[Path], out: Path) -> None:
    """seeds.csv and seeds.md from table.csv files, a seed each, into a folder."""
    found = seeds([pd.read_csv(path) for path in tables])
    write_csv(found, out / "seeds.csv", float_format="%.6g")
    write_text(markdown(found, len(tables)), out / "seeds.md")
