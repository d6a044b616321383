"""The figures: attack success against picture quality and against cost, and EraseFlow's training curves."""

import io
import math
import textwrap
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from eraseflow.params import Params
from eraseflow.report import collapsed
from eraseflow.report.cells import Cell
from eraseflow.report.table import REFERENCE, strongest

# Okabe and Ito's colours, which colour-blind readers can tell apart; the marker's shape says the same once more.
COLOURS = ["#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["s", "o", "^", "D", "v", "P", "X", "p", "h"]
STYLE: Any = {
    "svg.hashsalt": "eraseflow",  # otherwise the ids in an SVG differ from run to run
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
}


def encode(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """A figure as a file's bytes, the same for the same figure."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=160, metadata={"svg": {"Date": None}, "png": {"Software": None}}[kind])
    return buffer.getvalue()


def fid_vs_attack(params: Params, frame: pd.DataFrame, columns: int = 3) -> Figure:
    """Fréchet distance and ASR of each method's strongest attack, one panel a concept, at most `columns` a row."""
    title = "Attack success against picture quality: lower left is better"
    figure = _against(params, frame, columns, "fd", f"{frame['fd_name'].iloc[0]} (lower is better)", title)
    if 0 < 10 * frame["fd"].min() < frame["fd"].max():  # or a few spoilt models push all others into one corner
        for axes in figure.axes:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel(f"{frame['fd_name'].iloc[0]} (log scale, lower is better)")
    return figure


def asr_vs_cost(params: Params, frame: pd.DataFrame, costs: pd.DataFrame, columns: int = 3) -> Figure:
    """What the training took (unet_passes of costs.costs()) and ASR of each method's strongest attack, likewise."""
    both = frame.merge(costs[["concept", "method", "unet_passes"]], on=["concept", "method"])
    positive = both.loc[both["unet_passes"] > 0, "unet_passes"]
    least = 10.0 ** math.floor(math.log10(positive.min())) if len(positive) else 1.0
    both["unet_passes"] = both["unet_passes"].astype(float)
    free = both[both["unet_passes"] == 0].groupby("concept")["method"]
    for _, methods in free:  # side by side, or their intervals would lie on one another
        places = {name: place for place, name in enumerate(dict.fromkeys(methods))}
        apart = min(0.12, 0.6 / len(places)) * least
        both.loc[methods.index, "unet_passes"] = apart * methods.map(places).sub((len(places) - 1) / 2)
    title = "Attack success against the training's cost: lower left is better"
    figure = _against(params, both, columns, "unet_passes", "U-Net passes in training (lower is better)", title)
    for axes in figure.axes:
        axes.set_xscale("symlog", linthresh=least, linscale=0.6)
        axes.set_xlim(-0.5 * least, 2 * max(positive.max(), least) if len(positive) else least)
        axes.set_xticks([0, *round_numbers(least, positive.max())] if len(positive) else [0])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


@mpl.rc_context(STYLE)
def _against(params: Params, frame: pd.DataFrame, columns: int, x: str, label: str, title: str) -> Figure:
    concepts, looks = params.table.concepts, looks_of(params.table.methods)
    columns = min(columns, len(concepts))
    lines = -(-len(concepts) // columns)
    best = strongest(frame)
    rows = [best[best["concept"] == concept] for concept in concepts]
    notes = [_note(of) for of in rows]
    height = max(note.count("\n") for note in notes) + 1
    names = [*looks, "before the attack"]
    beside = min(len(names), 2 * columns)  # in the legend
    below = 0.23 * -(-len(names) // beside)  # inches
    size = 4.0 * columns + 0.4, (3.5 + 0.15 * height) * lines + 0.8 + below
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    for axes, of, note in zip(panels, rows, notes, strict=False):
        _panel(axes, of, looks, x)
        axes.set_xlabel(label)
        axes.set_title(of["concept"].iloc[0], loc="left", fontweight="bold", pad=8 + 12 * height)
        axes.annotate(
            note,
            (0, 1),
            (0, 5 + 12 * height),
            "axes fraction",
            "offset points",
            va="top",
            fontsize=8.5,
            color="#555555",
        )
    for axes in panels[::columns]:
        axes.set_ylabel("ASR, % of the prompts (lower is better)")
    for axes in panels[len(concepts) :]:
        axes.set_visible(False)
    figure.suptitle(textwrap.fill(title, 36 * columns), fontweight="bold")
    handles = [Line2D([], [], linestyle="none", marker=m, color=c, markersize=8) for c, m in looks.values()]
    handles.append(Line2D([], [], linestyle="none", marker="o", markersize=6, color="#555555", markerfacecolor="white"))
    if collapsed.flags(best).any():
        handles.append(Line2D([], [], linestyle="none", marker="x", markersize=8, color="#555555"))
        names.append(collapsed.LEGEND)
    figure.legend(handles, names, loc="outside lower center", ncols=beside)
    return figure


def round_numbers(low: float, high: float) -> list[float]:
    """Powers of ten between two values, and where these are few, twice and five times them."""
    steps = (1, 2, 5) if high < 30 * low else (1,)
    return [step * 10.0**power for power in range(12) for step in steps if low <= step * 10**power <= high]


def looks_of(names: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name, by its place."""
    return dict(zip(names, zip(cycle(COLOURS), cycle(MARKERS), strict=False), strict=False))


def _panel(axes: Axes, rows: pd.DataFrame, looks: dict[str, tuple[str, str]], column: str) -> None:
    for row in rows.to_dict("records"):
        colour, marker = looks[row["method"]]
        x, y, before = row[column], 100 * row["asr"], 100 * row["pre_asr"]
        axes.plot([x, x], [before, y], color=colour, linewidth=5, alpha=0.18, solid_capstyle="butt", zorder=2)
        axes.plot(x, before, marker, color=colour, markerfacecolor="white", markersize=6, zorder=4, clip_on=False)
        reach = [[y - 100 * row["asr_low"]], [100 * row["asr_high"] - y]]
        axes.errorbar(x, y, yerr=reach, fmt="none", ecolor=colour, elinewidth=1, capsize=4, zorder=3)
        edge = "white"
        if collapsed.has_collapsed(row):  # a cross, for it is no candidate for the lower left
            marker, edge = "x", colour
        axes.plot(x, y, marker, color=colour, markersize=8, markeredgecolor=edge, zorder=5, clip_on=False)
    axes.set_ylim(-4, 104)
    axes.margins(x=0.12)


def _note(rows: pd.DataFrame) -> str:
    """How many prompts a panel counts and which attack it shows for which method, in lines that fit above it."""
    groups = [f"{attack} ({', '.join(group['method'])})" for attack, group in rows.groupby("attack", sort=False)]
    attacks = ", ".join(groups) if len(groups) > 1 else rows["attack"].iloc[0]
    return textwrap.fill(f"{rows['n_prompts'].iloc[0]} prompts; {attacks}", 52)


@mpl.rc_context(STYLE)
def training(params: Params, cells: Path) -> Figure:
    """EraseFlow's loss and residual at every optimiser step, one line a concept."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    loss, residual = figure.subplots(1, 2)
    for (concept, (colour, _)), style in zip(looks_of(params.table.concepts).items(), cycle(["-", "--", "-.", ":"])):
        steps = Cell.of(cells, concept, REFERENCE).training()
        loss.plot(steps["step"], steps["loss"], style, color=colour, label=concept)
        residual.plot(steps["step"], steps["residual"], style, color=colour)
    loss.set(yscale="log", xlabel="optimiser step", ylabel="loss (squared residual)")
    residual.axhline(0, color="#888888", linewidth=1, zorder=1)
    residual.set(xlabel="optimiser step", ylabel="residual (0 is no loss)")
    residual.set_yscale("symlog", linthresh=1)  # where one concept's are a thousand times another's, both are seen
    figure.suptitle("EraseFlow's training", fontweight="bold")
    figure.legend(loc="outside lower center", ncols=4)
    return figure
