"""Comparison of concept traces.

The same request computed with another batch shape, or with part of its prompt from the cache,
differs by float32 rounding, which can also swap two light tokens of nearly the same weight.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from tolerances import CLEAR_CHOICE, TRACE_WEIGHT


def close(
    trace: list[list[Any]],
    other: list[list[Any]],
    tolerance: Mapping[str, float] = TRACE_WEIGHT,
) -> bool:
    """Whether two traces have the same heaviest tokens, and the same weights up to rounding."""
    return len(trace) == len(other) and all(
        _close(*concepts, tolerance) for concepts in zip(trace, other, strict=True)
    )


def is_clear(trace: list[list[Any]]) -> bool:
    """Whether rounding cannot change the heaviest token of any concept."""
    return all(
        len(concept) == 1 or concept[0][1] - concept[1][1] > CLEAR_CHOICE for concept in trace
    )


def _close(concept: list[Any], other: list[Any], tolerance: Mapping[str, float]) -> bool:
    ours, theirs = dict(concept), dict(other)
    if not concept or not other:  # a hidden state was fed
        return concept == other
    return concept[0][0] == other[0][0] and all(
        ours.get(token, 0.0) == pytest.approx(theirs.get(token, 0.0), **tolerance)
        for token in ours.keys() | theirs.keys()
    )
