"""Where Cold Stop cuts: in steps, and as a share of what CoT needs for the same problem."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from soft_sglang.eval.arms import title_of
from soft_sglang.eval.measurements import BASELINE, Block, Dataset
from soft_sglang.eval.plots.style import look, panels, plain_style, whole_bins
from soft_sglang.eval.statistics import Floats

_BINS = 50


def draw(dataset: Dataset) -> Figure | None:
    """A row of two histograms for each arm in which Cold Stop ended an answer; None if none has.

    The right one needs the lengths of the baseline's thinking, and is left out without them.
    """
    cuts = {arm: _cuts(block) for arm, block in dataset.blocks.items()}
    cuts = {arm: found for arm, found in cuts.items() if found}
    if not cuts:
        return None
    lengths = _baseline_lengths(dataset)
    steps = {arm: np.array([step for _, step in found], np.float64) for arm, found in cuts.items()}
    shares = {
        arm: np.array([step / lengths[p] for p, step in found if p in lengths], np.float64)
        for arm, found in cuts.items()
    }
    relative = any(found.size for found in shares.values())
    step_bins = whole_bins(max(float(found.max()) for found in steps.values()), _BINS)
    furthest = max((float(found.max()) for found in shares.values() if found.size), default=1.0)
    share_bins = np.linspace(0, 1.05 * max(furthest, 1.0), _BINS)
    with plain_style():
        figure, axes = panels([1.6] * len(cuts), 1 + relative)
        for row, arm in zip(axes, cuts, strict=True):
            found = f"{len(cuts[arm])} of {len(dataset.blocks[arm].answers)} answers cut"
            medians = f"medians: step {np.median(steps[arm]):g}"
            _histogram(row[0], arm, steps[arm], step_bins)
            row[0].xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            if relative:
                _histogram(row[1], arm, shares[arm], share_bins)
                row[1].axvline(1, color="black", linewidth=0.8, linestyle="--")
                medians += f", {np.median(shares[arm]):.2f} of CoT" if shares[arm].size else ""
                row[0].set_title(title_of(arm))
                row[1].set_title(f"{found}; {medians}", fontsize=8.5)
            else:
                row[0].set_title(f"{title_of(arm)}: {found}; {medians}")
        axes[-1][0].set_xlabel("step at which Cold Stop ends thinking")
        if relative:
            axes[-1][1].set_xlabel("the same, by CoT's mean for the problem")
        figure.suptitle(f"{dataset.name}: where Cold Stop cuts", x=0.01, ha="left", fontsize=10)
    return figure


def _histogram(axes: Axes, arm: str, values: Floats, edges: Floats) -> None:
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, fill=True, color=look(arm).colour, alpha=0.6)
    if values.size:
        axes.axvline(float(np.median(values)), color="black", linewidth=1.2)
    axes.set_xlim(0, edges[-1])
    axes.set_ylabel("answers")


def _cuts(block: Block) -> list[tuple[str, int]]:
    """Problem and step of every answer that Cold Stop ended."""
    return [
        (answer.problem, int(answer.soft_thinking["steps"]))
        for answer in block.answers
        if answer.soft_thinking and answer.end == "cold_stop"
    ]


def _baseline_lengths(dataset: Dataset) -> dict[str, float]:
    """Mean tokens of CoT's thinking by problem, where all its samples are known; none is 0."""
    block = dataset.blocks.get(BASELINE)
    if block is None:
        return {}
    means = block.thinking_tokens.mean(axis=1)
    return {p: float(m) for p, m in zip(block.problems, means, strict=True) if m > 0}
