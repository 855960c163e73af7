"""Entropy over the steps of thought: single thoughts, and all answers of an arm together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from soft_sglang.eval.arms import title_of
from soft_sglang.eval.measurements import Block, Dataset
from soft_sglang.eval.plots.style import GREY, look, panels, plain_style
from soft_sglang.eval.statistics import Floats

_EXAMPLES = 3
_SHARE = 0.1
"""The band ends where fewer of the answers are still thinking."""
_POINTS = 150
"""A curve has at most so many; steps are put together for that."""


_Thoughts = Mapping[tuple[str, int], Floats]
"""Entropies in nats, one per step of thinking, by problem and sample."""


@dataclass(frozen=True)
class _Band:
    """Over all answers that are still thinking: [points] each."""

    steps: Floats
    mean: Floats
    low: Floats
    high: Floats


def draw(dataset: Dataset) -> Figure | None:
    """A row for each arm whose engine returned entropies; None if there is no such arm.

    On the left single thoughts of the same problems in every row, on the right all answers.
    """
    thoughts = {arm: _thoughts(block) for arm, block in dataset.blocks.items()}
    thoughts = {arm: found for arm, found in thoughts.items() if found}
    if not thoughts:
        return None
    bands = {arm: _band(list(found.values())) for arm, found in thoughts.items()}
    ends = [float(band.steps[-1]) for band in bands.values()]
    last = min(max(ends), 2 * float(np.median(ends)))  # one endless arm must not hide the others
    examples = {arm: _examples(found) for arm, found in thoughts.items()}
    peak = max(float(thought.max()) for found in examples.values() for thought in found)
    highest = max(float(band.high.max()) for band in bands.values())
    with plain_style():
        figure, axes = panels([1.45] * len(thoughts), 2)
        for (left, right), arm in zip(axes, thoughts, strict=True):
            _single(left, arm, examples[arm], max(peak, 1e-3))
            _together(right, arm, bands[arm], max(highest, 1e-3))
            left.set_title(title_of(arm))
            left.set_xlim(0, last)
            right.set_xlim(0, last)
        axes[-1][0].set_xlabel("step of thinking")
        axes[-1][1].set_xlabel("step of thinking")
        figure.suptitle(
            f"{dataset.name}: entropy over the steps of thought. Left: single thoughts, the same "
            f"problems in every\nrow, heights to {peak:.1f} nats. "
            "Right: mean, and the middle 80 % of the answers that still think",
            x=0.01,
            ha="left",
            fontsize=9.5,
        )
    return figure


def _single(axes: Axes, arm: str, examples: Sequence[Floats], peak: float) -> None:
    """Thoughts above each other, each from its own line."""
    for place, entropies in enumerate(examples):
        steps, line = np.arange(1, len(entropies) + 1), -place
        axes.vlines(steps, line, line + 0.85 * entropies / peak, look(arm).colour, linewidth=0.7)
        axes.plot([0, len(entropies)], [line, line], color=GREY, linewidth=0.6)
    axes.set_ylim(-_EXAMPLES + 0.9, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def _together(axes: Axes, arm: str, band: _Band, highest: float) -> None:
    colour = look(arm).colour
    axes.fill_between(band.steps, band.low, band.high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(band.steps, band.mean, color=colour, linewidth=1.4)
    axes.set_ylim(0, 1.05 * highest)
    axes.set_ylabel("nats")


def _examples(thoughts: _Thoughts) -> list[Floats]:
    """The first samples of the first problems; others where those are missing."""
    keys = sorted(thoughts, key=lambda key: (key[1], key[0]))
    return [thoughts[key] for key in keys[:_EXAMPLES]]


def _thoughts(block: Block) -> _Thoughts:
    return {
        (answer.problem, answer.sample): np.array(answer.entropies, np.float64)
        for answer in block.thoughts
    }


def _band(thoughts: Sequence[Floats]) -> _Band:
    lengths = np.sort([len(thought) for thought in thoughts])
    last = int(lengths[int((1 - _SHARE) * (len(lengths) - 1))])
    width = -(-last // _POINTS)
    starts = range(0, last, width)
    pools = [
        np.concatenate([thought[start : start + width] for thought in thoughts]) for start in starts
    ]
    low, high = np.array([np.quantile(pool, [0.1, 0.9]) for pool in pools]).T
    steps = np.array([start + (width + 1) / 2 for start in starts])
    return _Band(steps, np.array([pool.mean() for pool in pools]), low, high)
