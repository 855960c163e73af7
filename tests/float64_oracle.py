"""The concept step as the method states it: in float64, row by row, every filter for real."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Row:
    """Parameters of one row; a filter or noise that is None is off."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    max_topk: int = 10
    gumbel: Callable[[int], float] | None = None
    """Gumbel(0, 1) noise of a token."""
    gumbel_temperature: float = 0.5
    log_gamma: Callable[[list[int], list[float]], list[float]] | None = None
    """Logarithms of Gamma variates of tokens and their concentrations: the Dirichlet noise."""
    dirichlet_alpha: float = 1.0


class Concept(NamedTuple):
    ids: list[int]
    weights: list[float]
    """All above 0, descending."""
    entropy: float


def concept(logits: Sequence[float] | np.ndarray, row: Row) -> Concept:
    """The concept token of one row of logits."""
    logits = np.asarray(logits, dtype=np.float64)
    if not np.any(np.isfinite(logits)):
        return Concept([0], [1.0], 0.0)
    scaled = (logits - logits.max()) / row.temperature
    p = np.exp(scaled) / np.exp(scaled).sum()
    entropy = -math.fsum(x * math.log(x) for x in p.tolist() if x > 0)

    by_weight = np.argsort(-scaled, kind="stable")  # equal ones by ascending id
    pairs = [
        (i, x) for i, x in zip(by_weight.tolist(), p[by_weight].tolist(), strict=True) if x > 0
    ]
    if row.top_k is not None:
        pairs = _renormalised(pairs[: row.top_k])
    pairs = _renormalised(_nucleus(pairs, row.top_p))
    pairs = _renormalised([(i, x) for i, x in pairs if x >= row.min_p * pairs[0][1]])
    if row.log_gamma is not None:
        ids = [i for i, _ in pairs]
        log_gammas = row.log_gamma(ids, [row.dirichlet_alpha * x for _, x in pairs])
        pairs = _sorted(_softmax(list(zip(ids, log_gammas, strict=True))))
    pairs = _renormalised(pairs[: row.max_topk])
    if row.gumbel is not None:
        perturbed = [(i, math.log(x) + row.gumbel(i)) for i, x in pairs]
        pairs = _sorted(_softmax([(i, x / row.gumbel_temperature) for i, x in perturbed]))
    pairs = [(i, x) for i, x in pairs if x > 0]
    return Concept([i for i, _ in pairs], [x for _, x in pairs], entropy)


def _nucleus(pairs: list[tuple[int, float]], top_p: float) -> list[tuple[int, float]]:
    if top_p >= 1:  # off, whatever the sum of the probabilities rounds to
        return pairs
    kept, before = [], 0.0
    for i, x in pairs:
        if before < top_p:
            kept.append((i, x))
        before += x
    return kept


def _renormalised(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    total = math.fsum(x for _, x in pairs)
    return [(i, x / total) for i, x in pairs]


def _softmax(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    peak = max(x for _, x in pairs)
    return _renormalised([(i, math.exp(x - peak)) for i, x in pairs])


def _sorted(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return sorted(pairs, key=lambda pair: -pair[1])
