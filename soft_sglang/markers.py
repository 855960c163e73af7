"""The markers of a thought in a model's own tokens, and what a prompt says of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from soft_sglang.kernels.table_rows import FORCED_LIMIT, MARKER_LIMIT


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model."""

    tokenizer: Any
    """Of Hugging Face's interface."""
    size: int
    """Number of ids that the model embeds."""
    turn_ends: frozenset[int] = frozenset()
    """Tokens that end a turn of the conversation: the model's end-of-sequence tokens."""

    def tokens(self, field: str, text: str, limit: int) -> tuple[int, ...]:
        """Ids of a text that a field of a request gives.

        Raises:
            ValueError: it is no token, more than ``limit``, or not in the vocabulary.
        """
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        problem = None
        if not 1 <= len(ids) <= limit:
            problem = f"{len(ids)} tokens"
        elif getattr(self.tokenizer, "unk_token_id", None) in ids:
            problem = "unknown"
        elif max(ids) >= self.size:
            problem = "beyond the model's vocabulary"
        if problem is None:
            return tuple(ids)
        allowed = "one token" if limit == 1 else f"1 to {limit} tokens"
        raise ValueError(f"{field} must be {allowed} of the vocabulary, but {text!r} is {problem}.")

    def token(self, field: str, text: str) -> int:
        """As :meth:`tokens`, of a text that is one token."""
        return self.tokens(field, text, limit=1)[0]


class Markers(NamedTuple):
    """What begins and ends a thought."""

    think_start_str: str
    think_end_str: str
    think_start: tuple[int, ...]
    """Ids; empty if the vocabulary does not have the default marker."""
    think_end: tuple[int, ...]
    cold_stop: tuple[int, ...]
    """What is emitted where a thought is made to end; its last ids are those of the marker."""


def read_markers(
    vocabulary: Vocabulary,
    think_start_str: str,
    think_end_str: str,
    cold_stop_str: str | None,
    needs_start: bool,
) -> Markers:
    """Look the markers of a request up; ``needs_start``: it cannot do without the first one.

    Raises:
        ValueError: naming the field and what is allowed.
    """
    if think_start_str == think_end_str:
        raise ValueError(
            f"think_start_str must be another string than think_end_str, got {think_end_str!r}."
        )
    think_end = vocabulary.tokens("think_end_str", think_end_str, MARKER_LIMIT)
    cold_stop = think_end
    if cold_stop_str is not None:
        if not cold_stop_str.endswith(think_end_str):
            raise ValueError(
                f"cold_stop_str must end with think_end_str, which is {think_end_str!r}, got "
                f"{cold_stop_str!r}."
            )
        before = cold_stop_str.removesuffix(think_end_str)
        if before:  # apart, so that nothing grows together with the marker
            limit = FORCED_LIMIT - len(think_end)
            field = "cold_stop_str without think_end_str"
            cold_stop = vocabulary.tokens(field, before, limit) + think_end
    try:
        think_start = vocabulary.tokens("think_start_str", think_start_str, MARKER_LIMIT)
    except ValueError:
        if needs_start:
            raise
        think_start = ()
    return Markers(think_start_str, think_end_str, think_start, think_end, cold_stop)


def is_closed(prompt: Sequence[int], markers: Markers, vocabulary: Vocabulary) -> bool:
    """Whether the thought of a prompt's last turn is over, so that the answer comes next.

    The last marker decides: that of the end closes the thought. Markers before the last token that
    ends a turn belong to turns that are over. One that is several tokens is looked for in the text,
    because it may have grown together with its neighbours there.
    """
    ends = vocabulary.turn_ends
    if len(markers.think_end) == 1 and len(markers.think_start) <= 1:
        telling = {*markers.think_start, *markers.think_end, *ends}
        last = next((token for token in reversed(prompt) if token in telling), None)
        return last == markers.think_end[0]
    begin = next((i + 1 for i in range(len(prompt) - 1, -1, -1) if prompt[i] in ends), 0)
    text: str = vocabulary.tokenizer.decode(list(prompt[begin:]), skip_special_tokens=False)
    return _place(text, markers.think_end_str) > _place(text, markers.think_start_str)


def _place(text: str, marker: str) -> tuple[int, int]:
    """Where the last occurrence of a marker ends; of two that end together the longer counts."""
    start = text.rfind(marker)
    return (-1, 0) if start < 0 else (start + len(marker), len(marker))
