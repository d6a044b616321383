"""One panel of named points with error bars, whose axis breaks where a few points lie far from the others."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eraseflow.report.labels import Point

FAR = 26.0  # an FID beyond it is drawn on a scale of its own, or all the others would be one heap
NEAR_SHARE = 0.64  # of the panel's width, where there are such points
BREAK = 0.14  # inches between the two scales
NAME = 0.62  # inches beside the outermost points, for their names
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mark:
    """A point: FID, ASR in percent with the ends of its interval (y itself where it has none), name and look."""

    x: float
    y: float
    low: float
    high: float
    name: str
    marker: str
    colour: str
    filled: bool = False


def scatter(figure: Figure, box: Box, marks: list[Mark]) -> tuple[list[Axes], list[Point]]:
    """Draw the marks within `box` (left, bottom, width, height in inches): the axes, and the names yet to be written.

    The axes are one, or two that share the panel where both near and FAR points are there.
    """
    left, bottom, wide, tall = box
    near, far = [mark.x for mark in marks if mark.x <= FAR], [mark.x for mark in marks if mark.x > FAR]
    if near and far:
        axes = [_axes(figure, (left, bottom, wide * NEAR_SHARE - BREAK, tall), near)]
        axes.append(_axes(figure, (left + wide * NEAR_SHARE, bottom, wide * (1 - NEAR_SHARE), tall), far))
        _broken(*axes)
    else:
        axes = [_axes(figure, box, near or far)]
    return axes, [_draw(axes[-1] if mark.x > FAR else axes[0], mark) for mark in marks]


def _axes(figure: Figure, box: Box, values: list[float]) -> Axes:
    left, bottom, wide, tall = box
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, wide / width, tall / height))
    span = max(values) - min(values)
    margin = span * (0.18 if max(values) > FAR else NAME / (wide - 2 * NAME)) or 0.5
    axes.set(xlim=(min(values) - margin, max(values) + margin), ylim=(-4, 104))
    return axes


def _broken(near: Axes, far: Axes) -> None:
    """Show that the second axes goes on where the first ends, on another scale."""
    for axes, most, edge in ((near, 6, near.get_xlim()[1]), (far, 3, far.get_xlim()[0])):
        low, high = axes.get_xlim()
        ticks = np.asarray(MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high))
        clear = abs(ticks - edge) > 0.1 * (high - low)  # no number at the break
        axes.set_xticks(ticks[clear & (ticks >= low) & (ticks <= high)])
    far.spines["left"].set_visible(False)
    far.tick_params(left=False, labelleft=False)
    slash: Any = {"marker": [(-0.5, -1), (0.5, 1)], "markersize": 9, "linestyle": "none", "color": "k", "mew": 1}
    near.plot(1, 0, transform=near.transAxes, clip_on=False, **slash)
    far.plot(0, 0, transform=far.transAxes, clip_on=False, **slash)


def _draw(axes: Axes, mark: Mark) -> Point:
    reach = [[mark.y - mark.low], [mark.high - mark.y]]
    axes.errorbar(mark.x, mark.y, yerr=reach, fmt="none", ecolor=mark.colour, elinewidth=1, capsize=3)
    look: dict[str, Any] = {"markersize": 7, "markerfacecolor": "white", "zorder": 4}
    if mark.filled:
        look = {"markersize": 8, "markeredgecolor": "white", "zorder": 5}
    axes.plot(mark.x, mark.y, mark.marker, color=mark.colour, clip_on=False, **look)
    return Point(axes, mark.x, mark.y, mark.low, mark.high, mark.name, mark.colour)
