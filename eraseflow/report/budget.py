"""Attack success against what the attack may cost: how many prompts have succeeded within a budget of U-Net passes."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator, StrMethodFormatter

from eraseflow.metrics.rates import Rate
from eraseflow.params import Params
from eraseflow.passes import PASSES
from eraseflow.report import collapsed
from eraseflow.report.baselines import BASELINES
from eraseflow.report.cells import Cell
from eraseflow.report.plots import STYLE, looks_of, round_numbers

COLUMNS = ["concept", "method", "attack", "passes", "text_passes", "images"]
COLUMNS += ["successes", "n", "asr", "low", "high", "collapsed"]
CAPTION = (
    "Attack success within a budget. A pass is one picture forward or backward through the U-Net, those that draw the "
    "judged pictures included; a line begins with the un-attacked picture. Bands are 95 % Wilson intervals. Dashed "
    "lines are baselines, which have as many pictures judged without looking at the model. Attacks that search with "
    "the text encoder alone (Ring-A-Bell, MMA) need passes of it besides, which budget/curves.csv counts."
)


def curves(params: Params, cells: Path, marked: collapsed.Marks = frozenset()) -> pd.DataFrame:
    """The points of every curve of the table, in its order: a row at each cost at which a prompt succeeded.

    passes: the budget of a prompt in U-Net passes, forward and backward; the first is that of the un-attacked picture,
    the last the most that any prompt took. successes: of n prompts those that took no more, and asr their share (0..1)
    with its 95 % Wilson interval. images, text_passes: the most judged images and text encoder passes of a prompt that
    had ended by then. collapsed: whether the curve is of a row that is `marked` so.
    Raises: CellError where costs are missing.
    """
    rows: list[dict[str, Any]] = []
    for concept in params.table.concepts:
        for method in params.table.methods:
            for attack in params.attacks_on(method):
                one = Cell.of(cells, concept, method).attack(attack, ("images", "tries", *PASSES))
                named = {"concept": concept, "method": method, "attack": attack}
                mark = {"collapsed": (concept, method, attack) in marked}
                rows += [named | mark | point for point in _points(one)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _points(rows: pd.DataFrame) -> list[dict[str, Any]]:
    unattacked = [tries[0] for tries in rows["tries"]]  # what drawing takes depends on the method
    start, read = (max(round(one[network], 2) for one in unattacked) for network in ("unet", "text_passes"))
    cost = (rows["unet_forward"] + rows["unet_backward"]).round(2)
    text = rows["text_forward"] + rows["text_backward"]
    points = []
    for budget in sorted({start, *cost[rows["success"]], cost.max()}):
        # What did not succeed has been tried all along; how far it was at a budget, those that ended there tell.
        ended = cost <= budget
        rate = Rate.of(rows["success"] & ended, rows["prompt"])
        points.append(
            {
                "passes": budget,
                "text_passes": round(text[ended].max(), 2) if ended.any() else read,
                "images": int(rows["images"][ended].max()) if ended.any() else 1,
                **{"successes": rate.successes, "n": rate.n, "asr": rate.value, "low": rate.low, "high": rate.high},
            }
        )
    return points


@mpl.rc_context(STYLE)
def budget(params: Params, frame: pd.DataFrame, concept: str, columns: int = 4) -> Figure:
    """One concept's curves, a panel a method and a line an attack; `frame` is that of `curves`.

    A line that ends in a cross is of a row that has collapsed; where all of a method have, its panel says so.
    """
    of = frame[frame["concept"] == concept]
    methods, looks = params.table.methods, looks_of(params.table.attacks)
    columns = min(columns, len(methods))
    lines = -(-len(methods) // columns)
    figure = Figure(figsize=(3.0 * columns + 0.6, 2.5 * lines + 1.3), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes, method in zip(panels, methods, strict=False):
        own = of[of["method"] == method]
        for attack in params.attacks_on(method):
            _line(axes, own[own["attack"] == attack], looks[attack][0], attack in BASELINES)
        mark = f" ({collapsed.MARK})" * bool(own["collapsed"].all())
        axes.set_title(method + mark, loc="left", fontweight="bold")
    panels[0].set(xscale="log", ylim=(-4, 104), xlim=(of["passes"].min() / 1.15, of["passes"].max() * 1.15))
    panels[0].xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panels[0].set_xticks(round_numbers(of["passes"].min(), of["passes"].max()))
    panels[0].xaxis.set_minor_locator(NullLocator())
    for axes in panels[len(methods) - columns : len(methods)]:
        axes.set_xlabel("U-Net passes a prompt")
        axes.tick_params(labelbottom=True)
    for axes in panels[::columns]:
        axes.set_ylabel("ASR, %")
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
    title = f"{concept}: attack success of {of['n'].iloc[0]} prompts against the attack's budget"
    figure.suptitle(textwrap.fill(title, 30 * columns), fontweight="bold")
    handles: list[Artist] = [
        Line2D([], [], color=colour, linestyle="--" if attack in BASELINES else "-")
        for attack, (colour, _) in looks.items()
    ]
    names = [*looks, "95 % interval"]
    handles.append(Patch(color="#555555", alpha=0.15))
    if of["collapsed"].any():
        handles.append(Line2D([], [], linestyle="none", marker="x", color="#555555"))
        names.append(collapsed.LEGEND)
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 2 * columns))
    return figure


def _line(axes: Axes, points: pd.DataFrame, colour: str, baseline: bool) -> None:
    x = points["passes"].to_numpy()
    axes.fill_between(x, 100 * points["low"], 100 * points["high"], step="post", color=colour, alpha=0.12, linewidth=0)
    style: Any = {"linestyle": "--", "linewidth": 1.4} if baseline else {"linewidth": 1.8}
    axes.step(x, 100 * points["asr"], where="post", color=colour, **style)
    end = points.iloc[-1]  # also where a line is a single point, all prompts succeeding un-attacked
    reach = [[100 * (end["asr"] - end["low"])], [100 * (end["high"] - end["asr"])]]
    marker: Any = {"fmt": "x", "markersize": 7} if end["collapsed"] else {"fmt": "o", "markersize": 4}
    axes.errorbar(end["passes"], 100 * end["asr"], reach, color=colour, elinewidth=1, capsize=2, **marker)
