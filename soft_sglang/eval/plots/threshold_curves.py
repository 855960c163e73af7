"""What Cold Stop would have cut of recorded thoughts, over its length threshold."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from soft_sglang.eval.arms import title_of
from soft_sglang.eval.families import families
from soft_sglang.eval.measurements import Dataset
from soft_sglang.eval.plots.style import look, panels, plain_style
from soft_sglang.eval.statistics import Floats
from soft_sglang.eval.what_if import Cuts, Grid, cuts, longest_runs

_POINTS = 60
_LIGHTEST = 0.3
"""Opacity of the lowest entropy threshold; the highest has 1."""


def draw(dataset: Dataset) -> Figure | None:
    """A row for each policy with recorded thoughts, a line for each entropy threshold.

    On the left the share of thoughts that would have been stopped, which have a run so long; on the
    right the share of steps that this would have saved; no line where Cold Stop had ended thoughts
    before. Dashed is the run's own length threshold.

    Returns:
        None if no thought was recorded.
    """
    shown = [block for family in families(dataset) if (block := family.least_stopped)]
    if not shown:
        return None
    entropies = Grid.of(dataset).entropies
    longest = max(int(longest_runs(block, entropies[-1]).max()) for block in shown)
    lengths = np.unique(np.geomspace(1, longest + 1, _POINTS).round())
    steps = [int(length) for length in lengths]
    found = {b.arm: {h: cuts(b, h, steps) for h in entropies} for b in shown}
    with plain_style():
        figure, axes = panels([1.5] * len(found), 2)
        for (left, right), (arm, by_entropy) in zip(axes, found.items(), strict=True):
            _curves(left, arm, lengths, {h: _known(c, c.stopped) for h, c in by_entropy.items()})
            _curves(right, arm, lengths, {h: _known(c, c.saved) for h, c in by_entropy.items()})
            left.set_title(title_of(arm))
            left.set_ylabel("stopped, %")
            right.set_ylabel("saved, %")
            for panel in (left, right):
                panel.set_xlim(1, max(lengths[-1], 2))
                if dataset.thresholds is not None:
                    own = dataset.thresholds.length
                    panel.axvline(own, color="black", linewidth=0.8, linestyle="--")
        axes[0][0].legend(title="below", fontsize=7, title_fontsize=7, frameon=False)
        axes[-1][0].set_xlabel("length threshold, steps (logarithmic)")
        axes[-1][1].set_xlabel("length threshold, steps (logarithmic)")
        figure.suptitle(
            f"{dataset.name}: thoughts that other thresholds would have stopped, and steps that\n"
            "this would have saved. What would have been answered then is not known",
            x=0.01,
            ha="left",
            fontsize=9.5,
        )
    return figure


def _known(of: Cuts, shares: Floats) -> Floats:
    return np.where(of.known, shares, np.nan)


def _curves(axes: Axes, arm: str, lengths: Floats, shares: Mapping[float, Floats]) -> None:
    opacities = np.linspace(_LIGHTEST, 1, len(shares))
    for opacity, (entropy, share) in zip(opacities, shares.items(), strict=True):
        label = f"{entropy:g} nats"
        axes.plot(lengths, share, color=look(arm).colour, alpha=float(opacity), label=label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_ylim(0, 102)
