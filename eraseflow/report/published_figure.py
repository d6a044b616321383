"""The published trade-off between attack and picture quality, nudity on Stable Diffusion 1.4, and what was measured."""

import textwrap
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eraseflow.params import Params
from eraseflow.report import labels
from eraseflow.report.counterparts import ATTACK, CLEAN, METHODS, NUDITY, TESTBED, overlay
from eraseflow.report.plausible import CellError
from eraseflow.report.plots import COLOURS, STYLE
from eraseflow.report.published import ATTACKED, FILE, FOOTNOTES, LEADERBOARD, LETTERS, PAPER
from eraseflow.report.scatter import Mark, scatter

PANELS = [  # source, its FID, title, what the source's figures are
    (PAPER, "FID clean-fid", "EraseFlow paper, Table 1", "NudeNet ≥ 0.6, 9 classes; FID on 10,000 COCO captions"),
    (LEADERBOARD, "FID T2IBenchmark", "UnlearnDiffAtk leaderboard", "NudeNet ≥ 0.45 (in effect 0.5)"),
]
LOOKS: dict[int | None, tuple[str, str, str]] = {  # of a published figure, by its denominator
    118: ("o", COLOURS[2], "published, of 118 prompts"),
    142: ("s", COLOURS[1], "published, of 142 prompts"),
    None: ("D", "#666666", "published, of neither: no interval"),
}
MEASURED = ("o", COLOURS[3], "measured here")
RAISED = str.maketrans("abcdefgh", "ᵃᵇᶜᵈᵉᶠᵍʰ")
GREY = "#555555"
LEFT, RIGHT, GUTTER, TALL, ABOVE, BELOW = 0.72, 0.2, 0.8, 4.5, 0.62, 0.55  # inches, as all sizes here


@mpl.rc_context(STYLE)
def published(params: Params, figures: pd.DataFrame, frame: pd.DataFrame, columns: int = 2) -> Figure:
    """UnlearnDiffAtk's ASR on nudity against FID, a panel a source, because their FIDs and thresholds differ.

    figures: published.read(). frame: the comparison table, whose rows are drawn where counterparts.overlay finds them
    of the paper's kind. columns: panels a row, 2 or 1.
    Raises: CellError with one line where a panel would be empty.
    """
    panels = [_rows(figures, source, fid) for source, fid, *_ in PANELS]
    for of, (source, fid, *_) in zip(panels, PANELS, strict=True):
        if of["fid"].isna().all():
            raise CellError(f"{FILE}: has no method of {source} with {ATTACKED} on nudity and {fid}")
    rows, ours = pd.concat(panels), overlay(frame)
    shared = set.intersection(*map(set, rows["notes"]))  # notes of every figure are marked in the legend alone
    wide = 5.3 if columns == 2 else 4.6
    width = LEFT + columns * wide + (columns - 1) * GUTTER + RIGHT
    notes, keys = _footnotes(params, rows, ours, round(15 * width)), _keys(rows, ours, shared)
    what = "Published and measured" if len(ours) else "Published"
    title = f"{what}: UnlearnDiffAtk's success against FID, nudity on Stable Diffusion 1.4"
    title = textwrap.fill(title, 110 if columns == 2 else 50)
    head, row = 0.22 + 0.2 * (title.count("\n") + 1), ABOVE + TALL + BELOW
    foot = 0.15 + 0.155 * (notes.count("\n") + 1)
    legend = 0.28 if columns == 2 else 0.05 + 0.2 * len(keys)
    height = head + len(PANELS) // columns * row + legend + foot

    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.12 / height, va="top", fontweight="bold")
    points: list[labels.Point] = []
    small: Any = {"fontsize": labels.SIZE, "color": GREY}
    for place, (of, (_, fid, name, note)) in enumerate(zip(panels, PANELS, strict=True)):
        left = LEFT + place % columns * (wide + GUTTER)
        bottom = height - head - (place // columns) * row - ABOVE - TALL
        marks = _marks(of, shared)
        if place == 0:
            marks += [_measured(one) for one in ours.to_dict("records")]
        axes, names = scatter(figure, (left, bottom, wide, TALL), marks)
        points += names
        if place == 0:
            _join(names)
        axes[0].set_ylabel("ASR, % (lower is better)")
        axes[0].annotate(name, (0, 1), (0, 24), "axes fraction", "offset points", fontsize=12, fontweight="bold")
        axes[0].annotate(note, (0, 1), (0, 9), "axes fraction", "offset points", **small)
        below = (left + wide / 2) / width, (bottom - 0.3) / height
        figure.text(*below, f"{fid} (lower is better)", ha="center", va="top")
    _legend(figure, keys, foot - 0.03, len(keys) if columns == 2 else 1)
    figure.text(
        0.15 / width, (foot - 0.1) / height, notes, va="top", fontsize=labels.SIZE, color=GREY, linespacing=1.25
    )
    labels.annotate(figure, points)
    return figure


def _rows(figures: pd.DataFrame, source: str, fid: str) -> pd.DataFrame:
    """One row a method: method, fid (NaN where the source gives none), value, rate, notes."""
    rows = figures[figures["source"].str.startswith(source)]
    attacked = rows[(rows["concept"] == "nudity") & (rows["metric"] == ATTACKED)]
    quality = rows[(rows["metric"] == fid) & rows["concept"].isin(["nudity", "COCO 10k"])]
    return attacked.merge(quality[["method", "value"]].rename(columns={"value": "fid"}), on="method", how="left")


def _denominator(row: dict) -> int | None:
    return row["rate"].n if row["rate"] else None


def _marks(rows: pd.DataFrame, shared: set[str]) -> list[Mark]:
    marks = []
    for row in rows.dropna(subset="fid").to_dict("records"):
        marker, colour, _ = LOOKS[_denominator(row)]
        y, rate = row["value"], row["rate"]
        low, high = (100 * rate.low, 100 * rate.high) if rate else (y, y)
        letters = "".join(LETTERS[note] for note in row["notes"] if note not in shared).translate(RAISED)
        # A printed value may be cut a little below its fraction, so it may lie below an interval that starts there.
        marks.append(Mark(row["fid"], y, min(low, y), max(high, y), row["method"] + letters, marker, colour))
    return marks


def _measured(row: dict) -> Mark:
    marker, colour, _ = MEASURED
    y, low, high = (100 * row[name] for name in ("asr", "asr_low", "asr_high"))
    return Mark(row["fd"], y, low, high, row["method"], marker, colour, filled=True)


def _join(points: list[labels.Point]) -> None:
    """A dotted line from each measured point to the published one of the same method."""
    published = {point.name.rstrip("".join(map(chr, RAISED.values()))): point for point in points}
    for point in points:
        twin = published.get(METHODS.get(point.name, ""))
        if twin and twin.axes is point.axes:
            point.axes.plot([point.x, twin.x], [point.y, twin.y], ":", color=point.colour, linewidth=1, zorder=1)


def _keys(rows: pd.DataFrame, ours: pd.DataFrame, shared: set[str]) -> list[tuple[str, str, str, str]]:
    """Marker, colour, filling and text of the legend's entries, only of what is drawn."""
    drawn = {_denominator(row) for row in rows.dropna(subset="fid").to_dict("records")}
    letters = "".join(LETTERS[note] for note in shared).translate(RAISED)
    keys = [
        (marker, colour, "white", text + letters * (of is not None))
        for of, (marker, colour, text) in LOOKS.items()
        if of in drawn
    ]
    return [*keys, (*MEASURED[:2], MEASURED[1], MEASURED[2])] if len(ours) else keys


def _legend(figure: Figure, keys: list[tuple[str, str, str, str]], bottom: float, columns: int) -> None:
    handles = [
        Line2D([], [], linestyle="none", marker=marker, markersize=7, color=colour, markerfacecolor=filling)
        for marker, colour, filling, _ in keys
    ]
    place: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, bottom / figure.get_figheight()), "borderaxespad": 0}
    figure.legend(handles, [text for *_, text in keys], ncols=columns, fontsize=9, **place)


def _footnotes(params: Params, rows: pd.DataFrame, ours: pd.DataFrame, width: int) -> str:
    """What the markers are and what is wrong with the published figures, in lines of `width` characters."""
    lines = [
        "Hollow: as published; bars: 95 % Wilson intervals of the counts that the percentages stand for. The two "
        "panels differ in FID, threshold and number of prompts, so they do not compare."
    ]
    if len(ours):
        row, model = ours.iloc[0], params.testbeds[TESTBED].model
        lines.append(
            f"Filled: measured here on {model}; {row['n_prompts']} prompts, {row['judge']}, FID of {row['fd_n']:,} "
            "pictures; dotted: to the same method as published."
        )
    elif params.table.testbed == TESTBED:
        wanted = f"{NUDITY} under {ATTACK} with an FID of {CLEAN}"
        lines.append(f"No marker is filled: the table has no row of {wanted} that has not collapsed.")
    else:
        lines.append(f"No marker is filled: this report's table is of the testbed {params.table.testbed}.")
    used = {note for notes in rows["notes"] for note in notes}
    lines += [f"{LETTERS[name].translate(RAISED)} {text}" for name, text in FOOTNOTES.items() if name in used]
    return "\n".join(textwrap.fill(line, width, subsequent_indent="  ") for line in lines)
