"""Comparison of concept traces.

The same request computed with another batch shape, or with part of its prompt from the cache,
differs by float32 rounding, which can also swap two light tokens of nearly the same weight.
"""

from typing import Any

import pytest
from tolerances import TRACE_WEIGHT


def close(trace: list[list[Any]], other: list[list[Any]]) -> bool:
    """Whether two traces have the same heaviest tokens, and the same weights up to rounding."""
    return len(trace) == len(other) and all(map(_close, trace, other))


def _close(concept: list[Any], other: list[Any]) -> bool:
    ours, theirs = dict(concept), dict(other)
    return concept[0][0] == other[0][0] and all(
        ours.get(token, 0.0) == pytest.approx(theirs.get(token, 0.0), **TRACE_WEIGHT)
        for token in ours.keys() | theirs.keys()
    )
