"""Statistics over problems: estimates with bootstrap intervals, pass@k.

A *problem* is the unit that is drawn at random; the samples of one problem belong together and are
resampled together (cluster bootstrap; Miller 2024, arXiv 2411.00640, on why). All arms of a dataset
share one set of resamples, so that a difference of two estimates is a paired one: both sides see
the same problems in every resample.

Needs NumPy only, and holds no state but its arrays.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 10_000
LEVEL = 0.95
_BLOCK = 500
"""Resamples that are float64 at once; the rest are kept as 16-bit counts."""


@dataclass(frozen=True)
class Interval:
    """Closed interval [low, high], in the unit of what it belongs to."""

    low: float
    high: float

    @property
    def defined(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def excludes(self, value: float) -> bool:
        """Never of an interval that is not defined (NaN)."""
        return value < self.low or value > self.high


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number, and the same number in every resample.

    Estimates of one `Bootstrap` are paired, those of bootstraps with different names independent;
    both may be added, subtracted and divided. A value that is not defined (no correct answer, say)
    is NaN; resamples where it is not defined are left out of the interval.

    Attributes:
        value: from all problems as they are.
        resamples: float64 [RESAMPLES].
        exact: the interval, where one is known that is better than the resamples'.
    """

    value: float
    resamples: Floats
    exact: Interval | None = None

    def interval(self) -> Interval:
        """Percentile interval that covers `LEVEL`.

        Not defined (NaN) where all resamples are the same: they say nothing about other problems.
        """
        if self.exact is not None:
            return self.exact
        defined = self.resamples[np.isfinite(self.resamples)]
        if not defined.size or defined.min() == defined.max():
            return Interval(math.nan, math.nan)
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(float(low), float(high))

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.value + other.value, self.resamples + other.resamples)

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.resamples - other.resamples)

    def __truediv__(self, other: Estimate) -> Estimate:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.divide(self.value, other.value)
            return Estimate(float(value), self.resamples / other.resamples)

    def times(self, factor: float) -> Estimate:
        exact = self.exact
        if exact is not None:
            low, high = sorted((exact.low * factor, exact.high * factor))
            exact = Interval(low, high)
        return Estimate(self.value * factor, self.resamples * factor, exact)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Unweighted mean, as the papers average over datasets of different sizes."""
    total = estimates[0]
    for estimate in estimates[1:]:
        total += estimate
    return total.times(1 / len(estimates)) if len(estimates) > 1 else total


class Bootstrap:
    """Resamples of one dataset's problems, with replacement, as many as there are.

    The same name and number of problems give the same resamples, whenever NumPy is the same.

    Args:
        problems: number of problems, at least 1.
        name: of the dataset; datasets of other names are resampled independently.
        seed: another one gives other resamples.
        resamples: how many.
    """

    def __init__(self, problems: int, name: str, seed: int = 0, resamples: int = RESAMPLES) -> None:
        if problems < 1:
            raise ValueError("no problem to resample")
        self.problems = problems
        random = np.random.default_rng([seed, zlib.crc32(name.encode())])
        self._counts = np.empty((resamples, problems), np.uint16)
        for start in range(0, resamples, _BLOCK):
            rows = min(_BLOCK, resamples - start)
            drawn = random.integers(0, problems, (rows, problems))
            drawn += np.arange(rows)[:, None] * problems
            counts = np.bincount(drawn.ravel(), minlength=rows * problems)
            self._counts[start : start + rows] = counts.reshape(rows, problems)

    def mean(self, values: Floats) -> Estimate:
        """Mean over problems.

        Args:
            values: [problems], one finite number per problem, for example a mean over its samples.
        """
        return Estimate(float(values.mean()), self._sums(values) / self.problems)

    def proportion(self, values: Floats) -> Estimate:
        """Mean of numbers from 0 to 1.

        If all problems have 1, or all 0, every resample is the same and says nothing. The interval
        is then the exact binomial one (Clopper and Pearson 1934) for as many successes or failures
        as there are problems. It holds for means over samples too: a problem has all its samples
        right no more often than its mean says.
        """
        estimate = self.mean(values)
        nearest = ((1 - LEVEL) / 2) ** (1 / self.problems)
        if np.all(values == 1):
            return Estimate(1.0, estimate.resamples, Interval(nearest, 1.0))
        if np.all(values == 0):
            return Estimate(0.0, estimate.resamples, Interval(0.0, 1 - nearest))
        return estimate

    def ratio(self, numerators: Floats, denominators: Floats) -> Estimate:
        """Sum over problems by sum over problems: a mean over a varying number of answers.

        Args:
            numerators: [problems], for example the tokens of all correct answers.
            denominators: [problems], not negative, for example the number of correct answers.
        """
        above = Estimate(float(numerators.sum()), self._sums(numerators))
        return above / Estimate(float(denominators.sum()), self._sums(denominators))

    def _sums(self, values: Floats) -> Floats:
        blocks = np.split(self._counts, range(_BLOCK, len(self._counts), _BLOCK))
        return np.concatenate([block.astype(np.float64) @ values for block in blocks])


def pass_at_k(samples: int, correct: NDArray[np.int64], k: int) -> Floats:
    """Chance that at least one of `k` samples is correct, of `samples` without replacement.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374).

    Args:
        samples: n, the same for every problem.
        correct: [problems], correct samples of each.
        k: 1 to n.

    Returns:
        [problems].
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs at least {k} samples, there are {samples}")
    table = [1 - math.comb(samples - c, k) / math.comb(samples, k) for c in range(samples + 1)]
    return np.array(table)[correct]
