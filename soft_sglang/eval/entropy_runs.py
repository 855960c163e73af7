"""Runs of steps with low entropy, counted as Cold Stop counts them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def run_lengths(entropies: Sequence[float], threshold: float) -> Ints:
    """How long the run is that each step ends.

    A step makes the run one longer if its entropy is strictly below the threshold, both as float32
    as on the device; any other step ends it.

    Args:
        entropies: [steps], nats.
        threshold: nats; no entropy is below 0.

    Returns:
        [steps].
    """
    low = np.asarray(entropies, np.float32) < np.float32(threshold)
    steps = np.arange(1, low.size + 1)
    return steps - np.maximum.accumulate(np.where(low, 0, steps))


def longest_run(entropies: Sequence[float], threshold: float) -> int:
    """Of a thought; 0 if it has no step. It is the answer's ``longest_run``."""
    return int(run_lengths(entropies, threshold).max(initial=0))


def first_steps(runs: Ints, lengths: Sequence[int]) -> Ints:
    """Where the run is first so long.

    Args:
        runs: [steps], from `run_lengths`.
        lengths: [lengths], steps.

    Returns:
        [lengths], the step, from 1; one more than there are where no run is so long.
    """
    return np.searchsorted(np.maximum.accumulate(runs), lengths) + 1
