"""How often the source of functions changed from release to release."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

CHANGED, GONE, FIRST, ABSENT, SAME = "×", "−", "+", "·", ""
LEGEND = f"{CHANGED} changed, {GONE} gone, {FIRST} first there, {ABSENT} not there"


@dataclass(frozen=True)
class History:
    """What each release after the first made of one function."""

    target: str
    marks: tuple[str, ...]

    @property
    def churn(self) -> int:
        """In how many releases the source was changed or taken away."""
        return sum(mark in (CHANGED, GONE) for mark in self.marks)


def history_of(target: str, sources: Sequence[str | None]) -> History:
    """From the function's source in each release, the oldest first."""
    pairs = pairwise(sources)
    return History(target, tuple(_mark(before, after) for before, after in pairs))


def _mark(before: str | None, after: str | None) -> str:
    if before is None:
        return ABSENT if after is None else FIRST
    if after is None:
        return GONE
    return SAME if after == before else CHANGED


def table(histories: Sequence[History], releases: Sequence[str]) -> str:
    """The histories as Markdown, the most changed first, with a total for each release."""
    rows = [["target", "churn", *releases], ["---", "--:", *[":-:"] * len(releases)]]
    for each in sorted(histories, key=lambda each: (-each.churn, each.target)):
        rows.append([f"`{each.target}`", str(each.churn), *each.marks])
    columns = zip(*(each.marks for each in histories), strict=True)
    totals = [sum(mark in (CHANGED, GONE) for mark in column) for column in columns]
    rows.append(["changed or gone", *map(str, (sum(totals), *totals))])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + f"\n\n{LEGEND}"
