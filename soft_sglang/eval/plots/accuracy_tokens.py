"""Accuracy against tokens, both with their intervals, one point per arm."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from soft_sglang.eval.arms import title_of
from soft_sglang.eval.measurements import BASELINE
from soft_sglang.eval.plots.labels import Label, place
from soft_sglang.eval.plots.style import GREY, look, panels, plain_style, spans_decades
from soft_sglang.eval.statistics import Estimate, Interval
from soft_sglang.eval.summaries import BlockSummary

Arms = Mapping[str, BlockSummary]

_HEIGHT = 4.6
_OVERVIEW_HEIGHT = 2.6
_NEAR_TOKENS, _NEAR_POINTS = 1.5, 15.0
"""An arm is near the baseline up to this factor in tokens, and up to these points in accuracy."""
_SMALL = 0.4
"""A close-up is worth its place if it shows at most this share of the area."""


def draw(summaries: Mapping[str, Arms]) -> Figure | None:
    """A panel for each dataset, below each other.

    Where some arms are far from the baseline, the others are drawn once more, larger, below.

    Args:
        summaries: by dataset and arm; datasets without a complete arm are left out.

    Returns:
        None if no dataset is left.
    """
    datasets = {name: arms for name, arms in summaries.items() if arms}
    if not datasets:
        return None
    heights: list[float] = []
    for arms in datasets.values():
        near = _near(arms)
        heights += [_OVERVIEW_HEIGHT, _HEIGHT] if len(near) < len(arms) else [_HEIGHT]
    with plain_style():
        figure, grid = panels(heights, 1)
        free = (row[0] for row in grid)
        labels: list[tuple[Axes, Arms]] = []
        for name, arms in datasets.items():
            near = _near(arms)
            axes = next(free)
            _panel(axes, arms, f"{name}: upper left is better; bars are 95 % intervals")
            if len(near) == len(arms):
                labels.append((axes, arms))
                continue
            close_up = next(free)
            _panel(close_up, near, f"{name}, the arms near CoT")
            _frame(axes, close_up)
            labels += [(axes, {a: s for a, s in arms.items() if a not in near}), (close_up, near)]
        for axes, arms in labels:
            place(figure, axes, [_label(arm, summary) for arm, summary in arms.items()])
    return figure


def _near(arms: Arms) -> Arms:
    """The arms near the baseline, if they are several and a small part of the picture; else all."""
    baseline = arms.get(BASELINE)
    if baseline is None:
        return arms
    tokens, accuracy = baseline.tokens.value, baseline.accuracy.value
    near = {
        arm: summary
        for arm, summary in arms.items()
        if tokens / _NEAR_TOKENS <= summary.tokens.value <= tokens * _NEAR_TOKENS
        and abs(summary.accuracy.value - accuracy) <= _NEAR_POINTS
    }
    return near if len(near) > 2 and _area(near) < _SMALL * _area(arms) else arms


def _area(arms: Arms) -> float:
    """Of the rectangle that holds all intervals."""
    across = [_bar(summary.tokens) for summary in arms.values()]
    up = [_bar(summary.accuracy) for summary in arms.values()]
    width = max(i.high for i in across) - min(i.low for i in across)
    return width * (max(i.high for i in up) - min(i.low for i in up))


def _bar(estimate: Estimate) -> Interval:
    """Its interval; no longer than a point where none is defined."""
    interval = estimate.interval()
    return interval if interval.defined else Interval(estimate.value, estimate.value)


def _panel(axes: Axes, arms: Arms, heading: str) -> None:
    for arm, summary in arms.items():
        style, x, y = look(arm), summary.tokens.value, summary.accuracy.value
        across, up = _bar(summary.tokens), _bar(summary.accuracy)
        axes.errorbar(
            x,
            y,
            xerr=[[x - across.low], [across.high - x]],
            yerr=[[y - up.low], [up.high - y]],
            color=style.colour,
            alpha=0.35,
            linewidth=1.2,
        )
        face = "white" if style.hollow else style.colour
        axes.plot(x, y, style.marker, color=style.colour, markerfacecolor=face, markersize=7)
    if spans_decades(np.array([summary.tokens.value for summary in arms.values()])):
        axes.set_xscale("log")
    axes.margins(0.12)
    axes.autoscale_view()
    axes.set_xlim(axes.get_xlim())  # labels must not move them
    axes.set_ylim(axes.get_ylim())
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(heading)
    axes.set_xlabel("mean tokens of an answer")
    axes.set_ylabel("accuracy (pass@1), %")


def _frame(axes: Axes, close_up: Axes) -> None:
    """Show in `axes` what the close-up shows."""
    (left, right), (bottom, top) = close_up.get_xlim(), close_up.get_ylim()
    axes.add_patch(
        Rectangle(
            (left, bottom), right - left, top - bottom, fill=False, edgecolor=GREY, linewidth=0.8
        )
    )


def _label(arm: str, summary: BlockSummary) -> Label:
    across, up = _bar(summary.tokens), _bar(summary.accuracy)
    return Label(
        title_of(arm),
        summary.tokens.value,
        summary.accuracy.value,
        look(arm).colour,
        (across.low, across.high),
        (up.low, up.high),
    )
