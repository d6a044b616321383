"""Published beside measured: how the table's own numbers agree with the literature's."""

from typing import Any

import pandas as pd

from eraseflow.metrics.rates import Rate
from eraseflow.params import Params
from eraseflow.report.counterparts import KINDS, METHODS, Kind, counterparts, difference_in_kind, without
from eraseflow.report.published import FOOTNOTES, LETTERS, PAPER

COLUMNS = [
    *("published_method", "published_concept", "metric", "source", "published", "published_low", "published_high"),
    *("successes", "prompts", "concept", "method", "measured", "measured_low", "measured_high", "measured_n"),
    *("difference", "inside", "remark", "notes"),
]
NOT_MEASURED = "not measured"


def reproduction(params: Params, figures: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each published figure, and each method of the table that answers to it.

    figures: published.read(); frame: table.table(). Rates are in percent, as published; `difference` is measured minus
    published. `inside`: yes or no, whether the measured value lies in the published one's 95 % interval; `no interval`
    where the published figure has none; `not measured`, with the reason in `remark` where another kind was measured or
    none can be. `notes`: names of published.FOOTNOTES.
    """
    rows, rest = [], figures.to_dict("records")
    for kind in KINDS:
        for figure in filter(kind.answers, rest):
            found: list[dict | None] = [*counterparts(frame, kind, figure["method"])]
            rows += [_published(figure) | _row(params, figure, kind, row) for row in found or [None]]
        rest = [figure for figure in rest if not kind.answers(figure)]
    rows += [_published(figure) | {"remark": without(figure)} for figure in rest]
    return pd.DataFrame(rows, columns=COLUMNS)


def _published(figure: dict) -> dict[str, Any]:
    rate: Rate | None = figure["rate"]
    values: dict[str, Any] = {f"published_{name}": figure[name] for name in ("method", "concept")}
    values |= {name: figure[name] for name in ("metric", "source", "notes")}
    values |= {"published": figure["printed"], "inside": NOT_MEASURED}
    if rate:
        values |= {"successes": rate.successes, "prompts": rate.n}
        values |= {"published_low": 100 * rate.low, "published_high": 100 * rate.high}
    return values


def _row(params: Params, figure: dict, kind: Kind, row: dict | None) -> dict[str, Any]:
    values: dict[str, Any] = {"concept": kind.concept}
    if row is None:
        return values
    values |= {"method": row["method"], "remark": difference_in_kind(params, kind, row)}
    return values if values["remark"] else values | _measured(figure["value"], figure["rate"], kind, row)


def _measured(published: float, rate: Rate | None, kind: Kind, row: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if kind.judge:
        measured, values["measured_n"] = 100 * row[kind.column], row[kind.count]
        values |= {f"measured_{end}": 100 * row[f"{kind.column}_{end}"] for end in ("low", "high")}
        if rate and rate.n != row[kind.count]:
            values["remark"] = f"of {row[kind.count]} prompts, published of {rate.n}"
    else:
        measured, values["measured_n"] = row[kind.column], row[kind.count]
        erased = f"{kind.concept} or {kind.averaged}, whose mean this is," if kind.averaged else kind.concept
        values["remark"] = f"with {erased} erased" if row["method"] != "original" else ""
    inside = "no interval"
    if rate:
        inside = "yes" if 100 * rate.low <= measured <= 100 * rate.high else "no"
    return values | {"measured": measured, "difference": measured - published, "inside": inside}


def formatted(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows as text for reproduction.csv, the footnotes spelled out; empty where there is no value."""
    forms = dict.fromkeys(["published_low", "published_high", "measured", "measured_low", "measured_high"], "{:.2f}")
    forms |= {"difference": "{:+.2f}", **dict.fromkeys(["successes", "prompts", "measured_n"], "{:.0f}")}
    text = frame.astype(object)
    for column, form in forms.items():
        text[column] = ["" if pd.isna(value) else form.format(value) for value in frame[column]]
    text["notes"] = [" ".join(FOOTNOTES[note] for note in notes) for notes in frame["notes"]]
    return text.fillna("").astype(str)


def readable(params: Params, frame: pd.DataFrame) -> list[dict[str, str]]:
    """The rows of the table's own concepts and methods, as the page writes them; `marks`: letters of footnotes."""
    names = {METHODS.get(method) for method in params.table.methods}
    paper = frame["concept"].isna() & frame["source"].str.startswith(PAPER)  # what is not measured here
    chosen = frame["published_method"].isin(names) & (frame["concept"].isin(params.table.concepts) | paper)
    rows = []
    for notes, row in zip(frame.loc[chosen, "notes"], formatted(frame[chosen]).to_dict("records"), strict=True):
        rows.append(
            {
                "what": f"{row['published_concept']}: {row['metric']}",
                "source": row["source"].partition(",")[0].partition(" (")[0],
                "method": row["published_method"],
                "published": _with_interval(row, "published"),
                "marks": ", ".join(LETTERS[note] for note in notes),
                "measured": _with_interval(row, "measured") or NOT_MEASURED,
                "by": "; ".join(filter(None, [row["method"], row["remark"]])),
                "difference": row["difference"],
                "inside": "" if row["inside"] == NOT_MEASURED else row["inside"],
            }
        )
    return rows


def _with_interval(row: dict, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]} ({float(low):.0f}-{float(high):.0f})" if low else row[name]
