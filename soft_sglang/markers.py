"""The markers of a thought in a model's own tokens, and what a prompt says of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from soft_sglang.kernels.table_rows import FORCED_LIMIT, MARKER_LIMIT

logger = logging.getLogger(__name__)

_QUESTION = "soft-sglang's question"


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model."""

    tokenizer: Any
    """Of Hugging Face's interface."""
    size: int
    """Number of ids that the model embeds."""
    turn_ends: frozenset[int] = frozenset()
    """Tokens that end a turn of the conversation: the model's end-of-sequence tokens."""

    @cached_property
    def reply_start(self) -> str:
        """What the chat template writes between a user's message and the reply; empty: not known.

        Without blanks at its ends, which may be one token with what comes before or after.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            return ""
        messages = [{"role": "user", "content": _QUESTION}]
        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template may raise anything; then the tokens alone tell
            logger.info("soft-sglang: the chat template cannot be rendered: %s", error)
            return ""
        return text.rpartition(_QUESTION)[2].strip() if _QUESTION in text else ""

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
        length = len(think_end)
        earlier = (cold_stop[i : i + length] for i in range(len(cold_stop) - length))
        if think_end_str in before or think_end in earlier:
            raise ValueError(
                f"cold_stop_str must have think_end_str at its end only, got {cold_stop_str!r}."
            )
    try:
        think_start = vocabulary.tokens("think_start_str", think_start_str, MARKER_LIMIT)
    except ValueError:
        if needs_start:
            raise
        think_start = ()
    if think_start_str == think_end_str or (needs_start and think_start == think_end):
        raise ValueError(
            f"think_start_str must be another text than think_end_str, got {think_start_str!r}."
        )
    return Markers(think_start_str, think_end_str, think_start, think_end, cold_stop)


def is_closed(prompt: Sequence[int], markers: Markers, vocabulary: Vocabulary) -> bool:
    """Whether the thought of a prompt's last turn is over, so that the answer comes next.

    The last marker decides: that of the end closes the thought. Markers before the last token that
    ends a turn, or before the words with which the chat template begins a reply, belong to turns
    that are over. One that is several tokens is looked for in the text, because it may have grown
    together with its neighbours there.
    """
    begin = _last_turn(prompt, markers, vocabulary)
    if len(markers.think_end) == 1 and len(markers.think_start) <= 1:
        telling = {*markers.think_start, *markers.think_end}
        turn = (prompt[i] for i in range(len(prompt) - 1, begin - 1, -1))
        return next((t for t in turn if t in telling), None) == markers.think_end[0]
    # multimodal placeholders are no tokens
    turn_ids = [token for token in prompt[begin:] if 0 <= token < vocabulary.size]
    text: str = vocabulary.tokenizer.decode(turn_ids, skip_special_tokens=False)
    return _place(text, markers.think_end_str) > _place(text, markers.think_start_str)


def _last_turn(prompt: Sequence[int], markers: Markers, vocabulary: Vocabulary) -> int:
    """Where the last turn of a prompt begins, as far as its tokens tell."""
    reply = vocabulary.reply_start
    for marker in (markers.think_start_str, markers.think_end_str):
        reply = reply.partition(marker)[0]
    words = vocabulary.tokenizer.encode(reply, add_special_tokens=False) if reply else []
    for begin in range(len(prompt), 0, -1):
        if prompt[begin - 1] in vocabulary.turn_ends:
            return begin
        ends_reply = bool(words) and prompt[begin - 1] == words[-1]
        if ends_reply and list(prompt[max(begin - len(words), 0) : begin]) == words:
            return begin
    return 0


def _place(text: str, marker: str) -> tuple[int, int]:
    """Where the last occurrence of a marker ends; of two that end together the longer counts."""
    start = text.rfind(marker)
    return (-1, 0) if start < 0 else (start + len(marker), len(marker))
