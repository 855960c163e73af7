"""Distribution of the length of thinking, a row per arm."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from soft_sglang.eval.arms import title_of
from soft_sglang.eval.measurements import Dataset
from soft_sglang.eval.plots.style import look, panels, plain_style, spans_decades, whole_bins
from soft_sglang.eval.statistics import Floats

_ROW = 0.62
_BINS = 80
_SHOWN = 0.97
"""The axis holds at least this share of every arm's thoughts."""


def draw(dataset: Dataset) -> Figure | None:
    """Histograms over the same bins, each as high as its own highest bin; the tick is the median.

    A few very long thoughts do not stretch the axis: at its end is written how many are beyond.

    Returns:
        None if no arm's lengths are known.
    """
    lengths = {arm: _known(block.thinking_tokens) for arm, block in dataset.blocks.items()}
    lengths = {arm: values for arm, values in lengths.items() if values.size}
    if not lengths:
        return None
    everything = np.concatenate(list(lengths.values()))
    logarithmic = spans_decades(everything)
    edges = _edges(list(lengths.values()), logarithmic)
    with plain_style():
        figure, ((axes,),) = panels([_ROW * len(lengths) + 0.6], 1)
        beside = axes.get_yaxis_transform()
        for row, (arm, values) in enumerate(lengths.items()):
            counts, _ = np.histogram(values, edges)
            heights = 0.82 * counts / max(counts.max(), 1)
            colour, bottom = look(arm).colour, -row
            axes.stairs(
                bottom + heights, edges, baseline=bottom, fill=True, color=colour, alpha=0.55
            )
            axes.stairs(bottom + heights, edges, baseline=bottom, color=colour, linewidth=0.8)
            median = float(np.median(values))
            axes.plot([median, median], [bottom, bottom + 0.82], color="black", linewidth=1.2)
            beyond = int((values > edges[-1]).sum())
            axes.text(1.09, bottom + 0.3, f"{median:g}", ha="right", transform=beside)
            if beyond:
                axes.text(1.2, bottom + 0.3, str(beyond), ha="right", transform=beside)
        axes.text(1.09, 1.0, "median", ha="right", transform=beside)
        if everything.max() > edges[-1]:
            axes.text(1.2, 1.0, "beyond", ha="right", transform=beside)
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xlim(max(edges[0], 0), edges[-1])
        axes.set_ylim(-len(lengths) + 0.9, 1.0)
        axes.set_yticks([-row + 0.3 for row in range(len(lengths))], [title_of(a) for a in lengths])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_title(f"{dataset.name}: tokens of thinking, all answers", pad=14)
        axes.set_xlabel("tokens of thinking" + (" (logarithmic)" if logarithmic else ""))
    return figure


def _edges(lengths: Sequence[Floats], logarithmic: bool) -> Floats:
    """Bins for all arms; the last one ends where the longest arm has few thoughts left."""
    last = max(float(np.quantile(values, _SHOWN)) for values in lengths)
    longest = max(float(values.max()) for values in lengths)
    # what is little beyond is shown as well
    last = longest if longest < 1.5 * last else math.ceil(1.1 * last)
    if not logarithmic:
        return whole_bins(last, _BINS)
    shortest = min(float(values.min()) for values in lengths)
    return np.geomspace(max(shortest, 1), max(last, 2) + 0.5, _BINS)


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]
