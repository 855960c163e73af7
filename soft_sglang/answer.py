"""The ``soft_thinking`` object of an answer, assembled from the scheduler's reports."""

from collections.abc import Mapping
from typing import Any


def accumulate(answer: dict[str, Any] | None, report: Mapping[str, Any]) -> dict[str, Any]:
    """Add a report to what the client has been, or will be, told.

    The summary fields replace, ``concepts`` extend the list in place.
    """
    answer = {} if answer is None else answer
    concepts = answer.setdefault("concepts", []) if "concepts" in report else None
    answer.update({name: value for name, value in report.items() if name != "concepts"})
    if concepts is not None:
        concepts.extend(report["concepts"])
    return answer


def chunk(
    answer: Mapping[str, Any], told: int, up_to: int | None = None
) -> tuple[dict[str, Any], int]:
    """One stream chunk's own part of an accumulated answer.

    Args:
        answer: as accumulated so far.
        told: number of concepts that earlier chunks carried.
        up_to: number of concepts that may be told by now; default: all.

    Returns:
        The chunk's part and the new number.
    """
    part = dict(answer)
    if "concepts" in part:
        part["concepts"] = part["concepts"][told:up_to]
        told += len(part["concepts"])
    return part, told
