"""Tokenizer manager, answers: assembles the reports of soft requests."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from soft_sglang.answer import accumulate, chunk
from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.record import When, patch

_ANSWER = "soft_thinking"
"""Attribute of a request's state that holds its accumulated answer."""


@patch(
    "managers.tokenizer_manager.TokenizerManager.update_request_meta_info",
    When.AROUND,
    why="SGLang's accumulation expects one entry per token; the scheduler sends reports.",
    how="Accumulates the reports on the request's state and puts the whole into meta_info.",
    upstream="Not applicable.",
    fingerprint="acccc58e0ca8eb2f",
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
    fingerprint="75b01eedc2169c30",
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


@patch(
    "managers.tokenizer_manager.TokenizerManager.generate_request",
    When.AROUND,
    why=(
        "A stream's chunk carries only its own steps, and chunks may be dropped or merged on "
        "their way here."
    ),
    how="Cuts each chunk's part out of the accumulated answer where it leaves the manager.",
    upstream="Not applicable.",
    fingerprint="c230e6cc6990aa64",
)
def cut_chunks(
    original: Callable[..., AsyncGenerator[Any, None]], self: Any, obj: Any, request: Any = None
) -> AsyncGenerator[Any, None]:
    """Give every chunk of a stream its own part of the answer."""
    outputs = original(self, obj, request)
    if not getattr(obj, "stream", False):
        return outputs
    return _cut(outputs, getattr(obj, "soft_thinking_chunks", None))


async def _cut(
    outputs: AsyncGenerator[Any, None], owed: dict[int, dict[str, Any]] | None
) -> AsyncGenerator[Any, None]:
    """``owed``: where the stream of an OpenAI route finds the parts, by choice."""
    told: dict[int, int] = {}
    async with aclosing(outputs):
        async for output in outputs:
            answer = output["meta_info"].get(REQUEST_KEY)
            if answer is not None:
                index = output.get("index", 0)
                part, told[index] = chunk(answer, told.get(index, 0), _steps(output))
                output["meta_info"] = {**output["meta_info"], REQUEST_KEY: part}
                if owed is not None:
                    owed[index] = accumulate(owed.get(index), part)
            yield output


def _steps(output: dict[str, Any]) -> int | None:
    """How many steps a chunk may tell: those of its tokens; the last one tells all."""
    meta_info = output["meta_info"]
    if meta_info.get("finish_reason") is not None:
        return None
    steps: int | None = meta_info.get("completion_tokens")
    return steps
