"""The published trade-off between attack and picture quality, nudity on Stable Diffusion 1.4, and what was measured."""

import textwrap
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eraseflow.params import Params
from eraseflow.report import labels
from eraseflow.report.plots import COLOURS, STYLE
from eraseflow.report.published import ATTACKED, FOOTNOTES, LEADERBOARD, LETTERS, PAPER
from eraseflow.report.reproduction import METHODS, NUDITY, TESTBED, overlay

FAR = 26.0  # an FID beyond it is drawn on a scale of its own, or all the others would be one heap
PANELS = [  # source, its FID, title, what the source's figures are
    (PAPER, "FID clean-fid", "EraseFlow paper, Table 1", "NudeNet ≥ 0.6, 9 classes; FID on 10,000 COCO captions"),
    (LEADERBOARD, "FID T2IBenchmark", "UnlearnDiffAtk leaderboard", "NudeNet ≥ 0.45 (in effect 0.5)"),
]
LOOKS: dict[Any, tuple[str, str, str]] = {
    118: ("o", COLOURS[2], "published, of 118 prompts"),
    142: ("s", COLOURS[1], "published, of 142 prompts"),
    None: ("D", "#666666", "published, of neither: no interval"),
}
MEASURED = ("o", COLOURS[3])
RAISED = str.maketrans("abcdefghi", "ᵃᵇᶜᵈᵉᶠᵍʰⁱ")
GREY = "#555555"
LEFT, RIGHT, BREAK, GUTTER, TALL, ABOVE, BELOW = 0.72, 0.2, 0.14, 0.8, 4.5, 0.62, 0.55  # inches, as all sizes here


@mpl.rc_context(STYLE)
def published(params: Params, figures: pd.DataFrame, frame: pd.DataFrame, columns: int = 2) -> Figure:
    """UnlearnDiffAtk's ASR on nudity against FID, a panel a source, because their FIDs and judges differ.

    figures: published.read(). frame: the comparison table, whose rows are drawn where reproduction.overlay finds them
    of the paper's kind. columns: panels a row, 2 or 1.
    """
    panels = [_points(figures, source, fid) for source, fid, *_ in PANELS]
    ours = overlay(frame)
    wide = 5.3 if columns == 2 else 4.6
    width = LEFT + columns * wide + (columns - 1) * GUTTER + RIGHT
    notes = _footnotes(params, pd.concat(panels), ours, round(15 * width))
    keys = _keys(panels, ours)
    foot = 0.15 + 0.155 * (notes.count("\n") + 1)
    legend = 0.28 if columns == 2 else 0.05 + 0.2 * len(keys)
    row = ABOVE + TALL + BELOW
    lines = len(PANELS) // columns
    what = "Published and measured" if len(ours) else "Published"
    title = f"{what}: UnlearnDiffAtk's success against FID, nudity on Stable Diffusion 1.4 (lower left is better)"
    title = textwrap.fill(title, 110 if columns == 2 else 50)
    head = 0.22 + 0.2 * (title.count("\n") + 1)
    height = head + lines * row + legend + foot
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, y=1 - 0.12 / height, va="top", fontweight="bold")
    points: list[labels.Point] = []
    for place, (rows, (_, *words)) in enumerate(zip(panels, PANELS, strict=True)):
        left = LEFT + place % columns * (wide + GUTTER)
        bottom = height - head - (place // columns) * row - ABOVE - TALL
        extra = ours if place == 0 else ours.iloc[:0]
        points += _panel(figure, (left, bottom, wide, TALL), rows, extra, *words)
    handles = [
        Line2D([], [], linestyle="none", marker=m, markersize=7, color=c, markerfacecolor=fill) for m, c, fill, _ in keys
    ]
    figure.legend(
        handles,
        [text for *_, text in keys],
        loc="lower center",
        bbox_to_anchor=(0.5, (foot - 0.03) / height),
        ncols=len(keys) if columns == 2 else 1,
        fontsize=9,
        borderaxespad=0,
    )
    figure.text(0.15 / width, (foot - 0.1) / height, notes, va="top", fontsize=labels.SIZE, color=GREY, linespacing=1.25)
    labels.annotate(figure, points)
    return figure


def _points(figures: pd.DataFrame, source: str, fid: str) -> pd.DataFrame:
    """One row a method: method, fid (NaN where the source gives none), value, rate, notes."""
    rows = figures[figures["source"].str.startswith(source)]
    attacked = rows[(rows["concept"] == NUDITY) & (rows["metric"] == ATTACKED)]
    quality = rows[(rows["metric"] == fid) & rows["concept"].isin([NUDITY, "COCO 10k"])]
    return attacked.merge(quality[["method", "value"]].rename(columns={"value": "fid"}), on="method", how="left")


def _panel(figure: Figure, box: tuple, rows: pd.DataFrame, ours: pd.DataFrame, fid: str, name: str, note: str) -> list:
    """Markers and error bars of one source within `box` (left, bottom, width, height); the names to be written."""
    left, bottom, wide, tall = box
    rows = rows.dropna(subset="fid")
    fids = [*rows["fid"], *ours["fd"]]
    parts = [[x for x in fids if x <= FAR], [x for x in fids if x > FAR]]
    share = 1.0 if not parts[1] else 0.64
    axes = [_axes(figure, (left, bottom, wide * share - BREAK * (share < 1), tall), parts[0])]
    if parts[1]:
        axes.append(_axes(figure, (left + wide * share, bottom, wide * (1 - share), tall), parts[1]))
        _broken(*axes)
    axes[0].set_ylabel("ASR, % (lower is better)")
    axes[0].annotate(name, (0, 1), (0, 24), "axes fraction", "offset points", fontsize=12, fontweight="bold")
    axes[0].annotate(note, (0, 1), (0, 9), "axes fraction", "offset points", fontsize=labels.SIZE, color=GREY)
    width, height = figure.get_size_inches()
    below = f"{fid} (lower is better)"
    figure.text((left + wide / 2) / width, (bottom - 0.3) / height, below, ha="center", va="top")
    points = []
    shared = _shared(rows)
    for row in rows.to_dict("records"):
        marker, colour, _ = _look(row)
        rate, y = row["rate"], row["value"]
        low, high = (100 * rate.low, 100 * rate.high) if rate else (y, y)
        low, high = min(low, y), max(high, y)  # the printed value may be cut a little below its fraction
        at = axes[-1] if row["fid"] > FAR else axes[0]
        at.errorbar(row["fid"], y, yerr=[[y - low], [high - y]], fmt="none", ecolor=colour, elinewidth=1, capsize=3)
        at.plot(row["fid"], y, marker, color=colour, markerfacecolor="white", markersize=7, zorder=4, clip_on=False)
        marks = "".join(LETTERS[one] for one in row["notes"] if one not in shared).translate(RAISED)
        points.append(labels.Point(at, row["fid"], y, low, high, row["method"] + marks, colour))
    for row in ours.to_dict("records"):
        x, y = row["fd"], 100 * row["asr"]
        low, high = 100 * row["asr_low"], 100 * row["asr_high"]
        at, (marker, colour) = axes[-1] if x > FAR else axes[0], MEASURED
        at.errorbar(x, y, yerr=[[y - low], [high - y]], fmt="none", ecolor=colour, elinewidth=1, capsize=3)
        at.plot(x, y, marker, color=colour, markersize=8, markeredgecolor="white", zorder=5, clip_on=False)
        points.append(labels.Point(at, x, y, low, high, row["method"], colour))
        twin = rows[rows["method"] == METHODS.get(row["method"])]
        if len(twin) and (twin["fid"].iloc[0] > FAR) == (x > FAR):
            ends = [x, twin["fid"].iloc[0]], [y, twin["value"].iloc[0]]
            at.plot(*ends, ":", color=colour, linewidth=1, zorder=1)
    return points


def _axes(figure: Figure, box: tuple, fids: list[float]) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom, wide, tall = box
    axes = figure.add_axes((left / width, bottom / height, wide / width, tall / height))
    axes.set_ylim(-4, 104)
    if fids:
        span = max(fids) - min(fids)
        air = 0.18 if max(fids) > FAR else 0.62 / (wide - 1.24)  # a name's width beside the outermost points
        margin = air * span or 0.5
        axes.set_xlim(min(fids) - margin, max(fids) + margin)
    return axes


def _broken(near: Axes, far: Axes) -> None:
    """Show that the second axes goes on where the first ends, on another scale."""
    far.spines["left"].set_visible(False)
    far.tick_params(left=False, labelleft=False)
    slash: Any = {"marker": [(-0.5, -1), (0.5, 1)], "markersize": 9, "linestyle": "none", "color": "k", "mew": 1}
    near.plot(1, 0, transform=near.transAxes, clip_on=False, **slash)
    far.plot(0, 0, transform=far.transAxes, clip_on=False, **slash)


def _look(row: dict) -> tuple[str, str, str]:
    return LOOKS[row["rate"].n if row["rate"] else None]


def _shared(rows: pd.DataFrame) -> set[str]:
    """Notes that every figure of a panel has; they are marked in the legend alone."""
    return set.intersection(*map(set, rows["notes"]))


def _keys(panels: list[pd.DataFrame], ours: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Marker, colour, filling and text of the legend's entries, only of what is drawn."""
    rows = pd.concat(panels)
    looks = dict.fromkeys(_look(row) for row in rows.to_dict("records"))
    marks = "".join(LETTERS[one] for one in _shared(rows)).translate(RAISED)
    keys = [(m, c, "white", text + marks * (m != "D")) for m, c, text in LOOKS.values() if (m, c, text) in looks]
    if len(ours):
        keys.append((*MEASURED, MEASURED[1], "measured here"))
    return keys


def _footnotes(params: Params, rows: pd.DataFrame, ours: pd.DataFrame, width: int) -> str:
    used = {note for notes in rows["notes"] for note in notes}
    lines = [
        "Hollow: as published; bars: 95 % Wilson intervals of the counts that the percentages stand for. The two panels "
        "differ in FID, threshold and number of prompts, so they do not compare."
    ]
    if len(ours):
        row, model = ours.iloc[0], params.testbeds[TESTBED].model
        lines.append(
            f"Filled: measured here on {model}; {row['n_prompts']} prompts, {row['judge']}, FID of {row['fd_n']:,} "
            "pictures; dotted: to the same method as published."
        )
    else:
        lines.append("Nothing in this report was measured on Stable Diffusion 1.4, so no marker is filled.")
    lines += [f"{LETTERS[name].translate(RAISED)} {text}" for name, text in FOOTNOTES.items() if name in used]
    return "\n".join(textwrap.fill(line, width, subsequent_indent="  ") for line in lines)
