"""What Cold Stop would have cut of recorded thoughts, had its thresholds been others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soft_sglang.eval.entropy_runs import Ints, first_steps, longest_run, run_lengths
from soft_sglang.eval.measurements import Block, Dataset
from soft_sglang.eval.statistics import Floats

_ENTROPIES = (0.01, 0.05, 0.1)
_LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Grid:
    """Thresholds to look at, each ascending: usual ones, and those of the runs."""

    entropies: tuple[float, ...]
    """Nats."""
    lengths: tuple[int, ...]
    """Steps."""

    @classmethod
    def of(cls, dataset: Dataset) -> "Grid":
        """For the arms of a dataset; usual lengths go up to the first that no run reaches."""
        blocks = dataset.blocks.values()
        own = {t for t in (dataset.thresholds, *(block.thresholds for block in blocks)) if t}
        entropies = sorted({*_ENTROPIES, *(thresholds.entropy for thresholds in own)})
        longest = max(int(longest_runs(b, entropies[-1]).max(initial=0)) for b in blocks)
        beyond = int(np.searchsorted(_LENGTHS, longest, side="right"))
        lengths = {*_LENGTHS[: beyond + 1], *(thresholds.length for thresholds in own)}
        return cls(tuple(entropies), tuple(sorted(lengths)))


@dataclass(frozen=True)
class Cuts:
    """What would have been cut at one entropy threshold; all are [lengths].

    Attributes:
        stopped: share of thoughts that would have been stopped, in percent.
        saved: share of all steps of thinking that would not have been taken, in percent.
        right: share of the stopped thoughts whose answer is right as it is, in percent; NaN where
            none is stopped.
        known: whether that is all: none of the others was ended by Cold Stop, and might have been
            stopped later.
    """

    stopped: Floats
    saved: Floats
    right: Floats
    known: NDArray[np.bool_]


def longest_runs(block: Block, entropy: float) -> Ints:
    """The longest run below `entropy` nats of every recorded thought, [thoughts]."""
    runs = [longest_run(answer.entropies, entropy) for answer in block.thoughts]
    return np.array(runs, np.int64)


def cuts(block: Block, entropy: float, lengths: Sequence[int]) -> Cuts:
    """Of an arm's recorded thoughts, by length threshold.

    A thought is stopped at the step that completes a run, unless it ended by itself at that step.

    Args:
        block: with at least one recorded thought.
        entropy: threshold, nats.
        lengths: thresholds, steps.
    """
    thoughts = block.thoughts
    steps = np.array([len(answer.entropies) for answer in thoughts])[:, None]
    stops = np.array([first_steps(run_lengths(a.entropies, entropy), lengths) for a in thoughts])
    ends = np.array([answer.end for answer in thoughts])[:, None]
    correct = np.array([block.verdicts[answer.key] for answer in thoughts])[:, None]
    stopped = (stops < steps) | ((stops == steps) & (ends != "think_end"))
    known = (stopped | (ends != "cold_stop")).all(axis=0)
    saved = np.where(stopped, steps - stops, 0).sum(axis=0) / steps.sum()
    with np.errstate(invalid="ignore"):
        right = (stopped & correct).sum(axis=0) / stopped.sum(axis=0)
    return Cuts(100 * stopped.mean(axis=0), 100 * saved, 100 * right, known)
