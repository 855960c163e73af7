"""Tokenizer manager, answers: assembles the reports of soft requests."""

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any

from soft_sglang.answer import accumulate, chunk
from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.announcement import learn_support
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.stops import FROM_END

_ANSWER = "soft_thinking"
"""Attribute of a request's state that holds its accumulated answer."""


@patch(
    "managers.tokenizer_manager.TokenizerManager.update_request_meta_info",
    When.AROUND,
    why="SGLang's accumulation expects one entry per token; the scheduler sends reports.",
    how="Accumulates the reports on the request's state and puts the whole into meta_info.",
    upstream="Not applicable.",
)
def collect_report(
    original: Callable[..., None],
    self: Any,
    meta_info: dict[str, Any],
    state: Any,
    customized_info: dict[str, list[Any]],
    index: int,
    finish_reason: dict[str, Any] | None,
) -> None:
    """Accumulate the report of one request."""
    if finish_reason is not None:
        finish_reason.pop(FROM_END, None)  # the detokenizer has read it
    others = {name: value for name, value in customized_info.items() if name != REQUEST_KEY}
    original(self, meta_info, state, others, index, finish_reason)
    reports = customized_info.get(REQUEST_KEY)
    report = None if reports is None else reports[index]
    answer = getattr(state, _ANSWER, None)
    if report is not None:
        answer = accumulate(answer, report)
        setattr(state, _ANSWER, answer)
    if answer is not None:
        # a copy: the summary must not appear in an earlier chunk that nobody has read yet
        meta_info[REQUEST_KEY] = dict(answer)


@patch(
    "managers.tokenizer_manager.TokenizerManager._handle_abort_req",
    When.AROUND,
    why="The answer of a request that was aborted in the queue is built from the message alone.",
    how="Takes the scheduler's report out of the message, and puts it into meta_info.",
    upstream="Not applicable.",
)
def collect_abort(original: Callable[..., None], self: Any, recv_obj: Any) -> None:
    """Build the answer of a request that was aborted in the queue."""
    state = self.rid_to_state.get(recv_obj.rid)
    reason = dict(recv_obj.finished_reason or {})
    report = reason.pop(REQUEST_KEY, None)
    recv_obj.finished_reason = reason or None
    original(self, recv_obj)
    if report is not None and state is not None and state.out_list:
        answer = accumulate(getattr(state, _ANSWER, None), json.loads(report))
        state.out_list[-1]["meta_info"][REQUEST_KEY] = answer


_collected: ContextVar[dict[int, dict[str, Any]] | None] = ContextVar("answers", default=None)
"""Where the request that is being handled collects its answers, by choice."""


@contextmanager
def collecting_answers() -> Iterator[dict[int, dict[str, Any]]]:
    """Collect the answers of the requests that begin in this context.

    Yields:
        The answers by choice, filled while the outputs are read, which may be later; in a stream a
        reader takes out what it has passed on.
    """
    answers: dict[int, dict[str, Any]] = {}
    token = _collected.set(answers)
    try:
        yield answers
    finally:
        _collected.reset(token)


@patch(
    "managers.tokenizer_manager.TokenizerManager.generate_request",
    When.AROUND,
    why=(
        "A stream's chunk carries only its own steps, and chunks may be dropped or merged on "
        "their way here. And every request passes here before its parameters are read: with "
        "--dp-size above 1 no start message says whether the schedulers run the plugin."
    ),
    how=(
        "Cuts each chunk's part out of the accumulated answer where it leaves the manager, and "
        "asks the schedulers first, once, where they are not known."
    ),
    upstream="Not applicable.",
)
async def answer(
    original: Callable[..., AsyncGenerator[Any, None]], self: Any, obj: Any, request: Any = None
) -> AsyncGenerator[Any, None]:
    """Generate; every output has its own part of the answer."""
    await learn_support(self)
    streamed, collected = getattr(obj, "stream", False), _collected.get()
    told: dict[int, int] = {}
    async with aclosing(original(self, obj, request)) as outputs:
        async for output in outputs:
            if streamed:
                _cut(output, told)
            if collected is not None:
                _collect(output, collected)
            yield output


def _cut(output: dict[str, Any], told: dict[int, int]) -> None:
    """Leave a chunk the steps that earlier ones of its choice have not ``told``."""
    whole = output["meta_info"].get(REQUEST_KEY)
    if whole is not None:
        index = output.get("index", 0)
        part, told[index] = chunk(whole, told.get(index, 0), _steps(output))
        output["meta_info"] = {**output["meta_info"], REQUEST_KEY: part}


def _collect(outputs: Any, collected: dict[int, dict[str, Any]]) -> None:
    """Note the answers of a chunk, or of a whole response's outputs."""
    several = outputs if isinstance(outputs, list) else [outputs]
    for position, output in enumerate(several):
        part = output.get("meta_info", {}).get(REQUEST_KEY)
        if part is not None:
            index = position if outputs is several else output.get("index", 0)
            collected[index] = accumulate(collected.get(index), part)


def _steps(output: dict[str, Any]) -> int | None:
    """How many steps a chunk may tell: those of its tokens; the last one tells all."""
    meta_info = output["meta_info"]
    if meta_info.get("finish_reason") is not None:
        return None
    steps: int | None = meta_info.get("completion_tokens")
    return steps
