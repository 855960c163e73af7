r"""Whether an answer is right: one rule for every arm, on the text after thinking only.

1. What counts is the last ``\boxed`` (see :mod:`soft_sglang.eval.boxes`). Without a box it is what
   ``math-verify`` finds: what follows "final answer is" or "answer", else the last formula or
   number.
2. Where the truth is one letter from A to J, a letter is looked for: in the box, as
   ``"answer": "C"``, after "answer is" or "answer:" (a capital, or in brackets), or the whole
   answer.
3. Otherwise the two are equal if they are the same text, or ``math-verify`` says so, with six
   decimals and with relations equal to the intervals that they describe.
"""

import logging
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from soft_sglang.eval.boxes import before_unclosed_box, last_boxed

GRADER = "math_verify"
RULE = 2
"""Version of the rule."""


@dataclass(frozen=True)
class Verdict:
    """Of one answer."""

    correct: bool
    extracted: str | None
    """What was compared; None: nothing was found."""


_SHOWN = 200
"""Characters of what was extracted."""
_WRONG = Verdict(correct=False, extracted=None)


def grade(answer: str, truth: str) -> Verdict:
    """Grade the text after thinking.

    No signal and no timeout is used, so any thread may call it, but a malicious answer
    (``9^{9^{9^9}}``) may take for ever: :mod:`soft_sglang.eval.grading_workers` has the deadline.

    Args:
        answer: the text after the end of thinking.
        truth: the answer of the dataset, in LaTeX or plain.
    """
    letter = _as_letter(truth)
    if letter is not None and letter in truth:  # a lower-case letter is a variable
        chosen = _chosen_letter(answer)
        return _WRONG if chosen is None else Verdict(chosen == letter, chosen)
    boxed = last_boxed(answer)
    if boxed is not None:
        right = _same_text(boxed, truth) or _same_value(_boxed(boxed), truth)
        return Verdict(right, boxed[:_SHOWN])
    text = before_unclosed_box(answer).strip()
    stated = _stated_text(text)
    if stated is not None and _same_text(stated, truth):
        return Verdict(True, stated[:_SHOWN])
    found = _parse(text)
    if not found:
        return _WRONG
    return Verdict(_same_value(text, truth), str(found[-1])[:_SHOWN])


# One letter ------------------------------------------------------------------------------------

_WRAPPING = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|rm|bf)\b|[{}()$.*\s]")
_OPTION = re.compile(r"\(?([A-J])(?:\)|[.:])\s*\S.*", re.S)
"""A letter and the text of the option."""
_ANSWER_FIELD = re.compile(r"[\"']?answer[\"']?\s*:\s*[\"']\s*\(?([A-Ja-j])\)?\s*[\"']", re.I)
_ANSWER_IS = re.compile(
    r"""
    (?i: answer \s* (?:\*\*)? \s* (?:is|:) \s* :? \s* (?:option|choice)? \s* )
    [*$"']*
    (?: \(([A-Ja-j])\)
      | \(? ([B-HJ]) \b (?!['’])
      # "a ketone" begins a sentence's end as well, and "I think" another
      | \(? ([AI]) \b (?!['’]) (?! \s+ (?!(?:because|since|as)\b) [a-z])
    )
    """,
    re.X,
)


def _as_letter(text: str) -> str | None:
    """A to J, if that is all that the text says."""
    bare = _WRAPPING.sub("", text).upper()
    return bare if len(bare) == 1 and "A" <= bare <= "J" else None


def _chosen_letter(answer: str) -> str | None:
    boxed = last_boxed(answer)
    if boxed is not None:
        option = _OPTION.fullmatch(_plain(boxed))
        return option.group(1) if option else _as_letter(boxed)
    for pattern in (_ANSWER_FIELD, _ANSWER_IS):
        found = list(pattern.finditer(answer))
        if found:
            return next(letter for letter in found[-1].groups() if letter).upper()
    return _as_letter(answer)


# Text ------------------------------------------------------------------------------------------

_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_STATED = re.compile(r"answer\s*(?:is|:)\s*:?\s*\**((?:[^.\n]|\.(?=\d))+)", re.I)


def _same_text(one: str, other: str) -> bool:
    one, other = _plain(one), _plain(other)
    if len(one) > 1 and one.replace(" ", "").isalpha():
        one, other = one.casefold(), other.casefold()
    return one == other != ""


def _plain(text: str) -> str:
    """Without dollars, text commands, a full stop and doubled spaces."""
    text = _TEXT.sub(r"\1", text).replace("$", "").strip(" .*\n")
    return re.sub(r"\s+", " ", text)


def _stated_text(text: str) -> str | None:
    """What follows "answer is", or a text of one line."""
    stated = _STATED.findall(text)
    if stated:
        return str(stated[-1])
    return text if text and "\n" not in text else None


# Value -----------------------------------------------------------------------------------------

_SPELLINGS = (
    (re.compile(r"\\varnothing"), r"\\emptyset"),
    # a thin space between groups of three digits
    (re.compile(r"(?<=\d)\\[,;: ]\s*(?=\d{3}(?!\d))"), ""),
)
_IN_BASE = re.compile(r"(\w+)_\{?(\d+)\}?")


def _boxed(content: str) -> str:
    return rf"\boxed{{{content}}}"


def _same_value(answer: str, truth: str) -> bool:
    """Whether ``math-verify`` finds the truth in an answer."""
    from math_verify import verify

    based = _IN_BASE.fullmatch(_plain(truth))
    if based:
        given = _IN_BASE.fullmatch(_plain(last_boxed(answer) or answer))
        if given and given.group(2) != based.group(2):
            return False
    return bool(
        verify(
            _parse(_boxed(truth)),
            _parse(answer),
            timeout_seconds=None,
            allow_set_relation_comp=True,
        )
    )


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    return list(parse(text, _targets(), parsing_timeout=None))


@cache
def _targets() -> tuple[Any, ...]:
    """What ``math-verify`` is to look for: a box before anything else."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig

    # it would warn that it runs without a timeout, and log every text that it cannot read
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
