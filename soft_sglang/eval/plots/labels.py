"""Names beside points, without one over another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

_RADII = (9, 16, 26, 40, 58, 80, 105)
"""Distances of a label from its point that are tried, in pixels at 100 dpi."""
_DIRECTIONS = 16
_POINT = 6
"""Half the size of a point in pixels at 100 dpi, which no label should cover."""


@dataclass(frozen=True)
class Label:
    """Text for a point, in data coordinates.

    Attributes:
        across: ends of the point's horizontal bar.
        up: ends of its vertical one.
    """

    text: str
    x: float
    y: float
    colour: str
    across: tuple[float, float]
    up: tuple[float, float]


def place(figure: Figure, axes: Axes, labels: Sequence[Label]) -> list[Bbox]:
    """Write each label near its point, inside the axes, where it covers nothing.

    Each takes the nearest free place, the first labels first; one that is not beside its point gets
    a thin line to it. Where no place is free the least crowded one is taken. The limits of the axes
    must be final.

    Returns:
        Where the labels are, in pixels.
    """
    figure.draw_without_rendering()
    assert isinstance(figure.canvas, FigureCanvasAgg)
    renderer = figure.canvas.get_renderer()
    scale = figure.dpi / 100
    frame = axes.get_window_extent(renderer)
    points = [tuple(axes.transData.transform((label.x, label.y))) for label in labels]
    size = _POINT * scale
    taken = [Bbox.from_extents(x - size, y - size, x + size, y + size) for x, y in points]
    bars = [bar for label in labels for bar in _bars(axes, label)]
    placed: list[Bbox] = []
    for label, (x, y) in zip(labels, points, strict=True):
        text = axes.text(0, 0, label.text, fontsize=8, color=label.colour, ha="center", va="center")
        extent = text.get_window_extent(renderer)
        candidates = _candidates(x, y, extent.width, extent.height, scale)
        box = min(candidates, key=lambda box: _cost(box, frame, taken + placed, bars, x, y))
        centre = ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)
        text.set_position(tuple(axes.transData.inverted().transform(centre)))
        text.set_in_layout(False)
        if _distance(box, x, y) > 1.5 * _RADII[1] * scale:
            _line(axes, box, x, y, label.colour)
        placed.append(box)
    return placed


def _candidates(x: float, y: float, width: float, height: float, scale: float) -> list[Bbox]:
    boxes = []
    for radius in _RADII:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            # the label's nearest edge is about `radius` away, in whatever direction
            centre_x = x + math.cos(angle) * (radius * scale + width / 2)
            centre_y = y + math.sin(angle) * (radius * scale + height / 2)
            boxes.append(
                Bbox.from_bounds(centre_x - width / 2, centre_y - height / 2, width, height)
            )
    return boxes


def _cost(
    box: Bbox, frame: Bbox, taken: Sequence[Bbox], bars: Sequence[Bbox], x: float, y: float
) -> float:
    """Pixels covered, or outside the frame, weigh far more than distance; bars weigh less."""
    covered = sum(_overlap(box, other) for other in taken)
    outside = box.width * box.height - _overlap(box, frame)
    crossed = sum(_overlap(box, bar) for bar in bars)
    return 100 * (covered + outside) + 0.5 * crossed + _distance(box, x, y)


def _bars(axes: Axes, label: Label) -> list[Bbox]:
    corners = [
        [(label.across[0], label.y), (label.across[1], label.y)],
        [(label.x, label.up[0]), (label.x, label.up[1])],
    ]
    return [Bbox(axes.transData.transform(ends)).padded(1) for ends in corners]


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return width * height if width > 0 and height > 0 else 0.0


def _nearest(box: Bbox, x: float, y: float) -> tuple[float, float]:
    return min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)


def _distance(box: Bbox, x: float, y: float) -> float:
    near_x, near_y = _nearest(box, x, y)
    return math.hypot(near_x - x, near_y - y)


def _line(axes: Axes, box: Bbox, x: float, y: float, colour: str) -> None:
    ends = axes.transData.inverted().transform([(x, y), _nearest(box, x, y)])
    axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=0.5, alpha=0.6)
