"""Stops that sleep while a request thinks: ``stop_in_thinking: false``.

A request that asks for it looks for its stop strings, patterns and ids in its answer only; SGLang's
methods are overridden on that request's object. A token that is checked is not committed to the
trace yet, so the trace tells the phase in which it was made.
"""

from collections.abc import Callable
from typing import Any

from soft_sglang.patches.record import When, patch
from soft_sglang.trace import RequestTrace

FROM_END = "soft_thinking_from_end"
"""Key of a finish reason: how many characters before the end of the output the matched stop may
begin. It is for the detokenizer, which would cut the output at the first match in the thought."""

_WHY = "SGLang looks for stops in the whole output."
_UPSTREAM = "SGLang would need to know the phases of a request."


def let_stops_sleep(req: Any, trace: RequestTrace) -> None:
    """Make a request look for its stops in its answer only."""
    own = AnswerStops(req, trace)
    for hook in (match_in_answer, look_at_answer, match_ids_in_answer, hold_back_answer):
        hook.override(req, own)


class AnswerStops:
    """The stops of one request."""

    def __init__(self, req: Any, trace: RequestTrace) -> None:
        self.req = req
        self.trace = trace

    @property
    def answered(self) -> int:
        """Number of tokens of the answer; 0 in a thought."""
        if self.trace.is_thinking:
            return 0
        return len(self.req.output_ids) - self.trace.answer_start


@patch(
    "managers.schedule_batch.Req._check_str_based_finish",
    When.OVERRIDE,
    why=_WHY,
    how="Does not look while the request thinks; tells the detokenizer where the match may begin.",
    upstream=_UPSTREAM,
)
def match_in_answer(
    original: Callable[..., bool], stops: AnswerStops, *args: Any, **kwargs: Any
) -> bool:
    """Look for the stop strings and patterns."""
    if not stops.answered:
        return False
    finished = original(*args, **kwargs)
    if finished:
        _note_place(stops.req)
    return finished


def _note_place(req: Any) -> None:
    """Put how far from the end of the output the match may begin into the finish reason."""
    matched = getattr(req.finished_reason, "matched", None)
    if not isinstance(matched, str):
        return
    tail: str = req.tail_str()
    place = len(tail) - max(tail.find(matched), 0)
    to_json = req.finished_reason.to_json
    req.finished_reason.to_json = lambda: {**to_json(), FROM_END: place}


@patch(
    "managers.schedule_batch.Req._stop_match_tail_len",
    When.OVERRIDE,
    why="The end of the output in which SGLang looks for stops may reach back into the thought.",
    how="Ends it where the answer begins.",
    upstream=_UPSTREAM,
)
def look_at_answer(
    original: Callable[..., int], stops: AnswerStops, *args: Any, **kwargs: Any
) -> int:
    """Number of tokens to look at."""
    return min(original(*args, **kwargs), stops.answered)


@patch(
    "managers.schedule_batch.Req._check_token_based_finish",
    When.OVERRIDE,
    why=_WHY,
    how="Hides the request's stop ids while it thinks. An end-of-sequence token ends it still.",
    upstream=_UPSTREAM,
)
def match_ids_in_answer(
    original: Callable[..., bool], stops: AnswerStops, *args: Any, **kwargs: Any
) -> bool:
    """Look for the stop ids."""
    sampling = stops.req.sampling_params
    ids = sampling.stop_token_ids
    if stops.answered or not ids:
        return original(*args, **kwargs)
    sampling.stop_token_ids = None
    try:
        return original(*args, **kwargs)
    finally:
        sampling.stop_token_ids = ids


@patch(
    "managers.schedule_batch.Req.check_match_stop_str_prefix",
    When.OVERRIDE,
    why="A stream holds text back that may become a stop.",
    how="Holds nothing back while the request thinks.",
    upstream=_UPSTREAM,
)
def hold_back_answer(original: Callable[..., bool], stops: AnswerStops) -> bool:
    """Whether the end of the output may become a stop."""
    return stops.answered > 0 and original()
