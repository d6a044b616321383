"""Names beside the points of a figure, placed so that none lies on another, on a marker or on an error bar."""

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

SIZE = 8.5  # points, as are all lengths here
HALF = 5  # half of the box that a marker takes
AIR = 1.5  # around a name
LEADER = 18  # from this distance on, a line leads from the name to its point
DISTANCES = [7, 10, 14, 18, 24, 32, 42, 54, 70, 90]
ANGLES = np.radians([0, 180, 30, -30, 150, 210, 90, 270, 60, -60, 120, 240])


@dataclass(frozen=True)
class Point:
    """A point in the data of its axes, the ends of its error bar (y itself where it has none), and its name."""

    axes: Axes
    x: float
    y: float
    low: float
    high: float
    name: str
    colour: str

    def at(self, y: float) -> np.ndarray:
        """Where the point's x and a y lie in the figure (2,)."""
        return self.axes.transData.transform((self.x, y)) * 72 / self.axes.figure.dpi

    def boxes(self) -> list[Bbox]:
        """What its marker and its error bar cover."""
        (x, y), (_, low), (_, high) = self.at(self.y), self.at(self.low), self.at(self.high)
        return [Bbox([[x - HALF, y - HALF], [x + HALF, y + HALF]]), Bbox([[x - 3, low - 1], [x + 3, high + 1]])]


def annotate(figure: Figure, points: list[Point]) -> list[Annotation]:
    """Write every point's name at the nearest free place within its axes, where no other marker is nearer than its own.

    Limits and positions of the axes must be final. Where no place is free, the name takes the one that covers least.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    taken = [box for point in points for box in point.boxes()]
    markers = [point.at(point.y) for point in points]
    written = []
    for point in points:
        text = Text(0, 0, point.name, fontsize=SIZE, figure=figure).get_window_extent(renderer)
        size = np.array([text.width, text.height]) * 72 / figure.dpi
        offset, box, far = _place(point, size, taken, markers)
        taken.append(box)
        line: dict[str, Any] = {
            "arrowstyle": "-",
            "color": point.colour,
            "linewidth": 0.6,
            "shrinkA": 0,
            "shrinkB": HALF,
        }
        note = point.axes.annotate(
            point.name, (point.x, point.y), offset, textcoords="offset points", arrowprops=line if far else None
        )
        note.set(ha="center", va="center", fontsize=SIZE, color=point.colour, zorder=6)
        written.append(note)
    return written


def _place(point: Point, size: np.ndarray, taken: list[Bbox], markers: list[np.ndarray]) -> tuple[Any, Bbox, bool]:
    """Offset of a name's centre from its point, the box that the name takes, and whether it needs a line."""
    at = point.at(point.y)
    inside = Bbox(point.axes.bbox.get_points() * 72 / point.axes.figure.dpi)
    least, best = math.inf, None
    for distance, angle in product(DISTANCES, ANGLES):
        offset = np.array([math.cos(angle), math.sin(angle)]) * (distance + size / 2)
        box = Bbox([at + offset - size / 2 - AIR, at + offset + size / 2 + AIR])
        covered = sum(_common(box, other) for other in taken) + 9 * (_common(box, box) - _common(box, inside))
        far = distance >= LEADER
        if not far and min(_gap(box, marker) for marker in markers) < _gap(box, at):
            covered += 20  # it would read as another point's name
        if covered < least:
            least, best = covered, (tuple(offset), box, far)
        if least < 1e-6:
            break
    assert best is not None
    return best


def _common(one: Bbox, other: Bbox) -> float:
    """The area that two boxes have in common."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0) * max(height, 0)


def _gap(box: Bbox, at: np.ndarray) -> float:
    """How far a point lies from a box."""
    return math.hypot(*np.maximum(0, np.maximum(box.min - at, at - box.max)))
