"""The ``soft_thinking`` object of an answer, assembled from the scheduler's reports."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

PER_STEP = ("concepts", "entropies", "positions")
"""Lists with an entry per thinking step."""


def accumulate(answer: dict[str, Any] | None, report: Mapping[str, Any]) -> dict[str, Any]:
    """Add a report to what the client has been, or will be, told.

    The summary fields replace, those of :data:`PER_STEP` extend their list in place.
    """
    answer = {} if answer is None else answer
    for name, value in report.items():
        if name in PER_STEP:
            answer.setdefault(name, []).extend(value)
        else:
            answer[name] = value
    return answer


def chunk(
    answer: Mapping[str, Any], told: int, up_to: int | None = None
) -> tuple[dict[str, Any], int]:
    """One stream chunk's own part of an accumulated answer.

    Args:
        answer: as accumulated so far.
        told: number of steps that earlier chunks carried.
        up_to: number of output tokens whose steps may be told by now; default: all.

    Returns:
        The chunk's part and the new number.
    """
    part, new = dict(answer), 0
    positions = answer.get("positions")
    if positions is not None and up_to is not None:  # else the steps are the first tokens
        up_to = bisect_left(positions, up_to)
    for name in PER_STEP:
        if name in part:
            part[name] = part[name][told:up_to]
            new = len(part[name])
    return part, told + new
