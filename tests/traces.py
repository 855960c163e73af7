"""Comparison of concept traces.

The same request computed with another batch shape, or with part of its prompt from the cache,
differs by float32 rounding.
"""

from typing import Any

import pytest

ROUNDING = 1e-4


def close(trace: list[list[Any]], other: list[list[Any]]) -> bool:
    """Whether two traces have the same tokens, with the same weights up to rounding."""
    if [[i for i, _ in c] for c in trace] != [[i for i, _ in c] for c in other]:
        return False
    weights = [[w for c in t for _, w in c] for t in (trace, other)]
    return bool(weights[0] == pytest.approx(weights[1], abs=ROUNDING))
