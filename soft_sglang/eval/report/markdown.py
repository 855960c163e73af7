"""Numbers and tables in Markdown."""

import math
from collections.abc import Sequence

from soft_sglang.eval.statistics import Estimate

NONE = "–"
"""What a cell without a number shows."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is left-aligned, the others right-aligned."""
    marks = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in (header, marks, *rows))


def plain(value: float, digits: int = 1) -> str:
    """A number with a true minus sign; `NONE` if it is not defined."""
    if not math.isfinite(value):
        return NONE
    # so many digits hold every number here, but no trace of the order of summation
    rounded = f"{round(value, 9):.{digits}f}"
    return rounded.replace("-", "−") if float(rounded) else f"{0:.{digits}f}"


def signed(value: float, digits: int = 1) -> str:
    """A change: with its sign, zero without."""
    text = plain(value, digits)
    return f"+{text}" if math.isfinite(value) and float(text.replace("−", "-")) > 0 else text


def tokens(value: float) -> str:
    """A mean number of tokens."""
    return plain(value, _digits(value))


def with_interval(estimate: Estimate) -> str:
    """For example ``86.3 [83.1, 89.0]``."""
    interval = estimate.interval()
    return _bracketed(plain(estimate.value), plain(interval.low), plain(interval.high))


def tokens_with_interval(estimate: Estimate) -> str:
    """For example ``5719 [5402, 6031]``."""
    interval, digits = estimate.interval(), _digits(estimate.value)
    low, high = (plain(end, digits) for end in (interval.low, interval.high))
    return _bracketed(tokens(estimate.value), low, high)


def change_with_interval(estimate: Estimate, unit: str = "") -> str:
    """For example ``−11.6 % [−14.2, −9.1]``."""
    interval = estimate.interval()
    value = signed(estimate.value) + (unit and f" {unit}")
    return _bracketed(value, signed(interval.low), signed(interval.high))


def marked_change(estimate: Estimate, unit: str = "") -> str:
    """For example ``−11.6 %*``; the star stands for an interval that excludes 0."""
    star = r"\*" if estimate.interval().excludes(0) else ""
    return signed(estimate.value) + (unit and f" {unit}") + star


def duration(seconds: float) -> str:
    """For example ``1:02:03`` (hours) or ``2:03`` (minutes)."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bracketed(value: str, low: str, high: str) -> str:
    if value.startswith(NONE):
        return NONE
    return f"{value} [{NONE}]" if low == NONE else f"{value} [{low}, {high}]"


def _digits(tokens: float) -> int:
    return 0 if tokens >= 1000 else 1


def _cell(text: str) -> str:
    return text.replace("|", r"\|")
