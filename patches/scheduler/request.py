"""The scheduler's request: its trace, and how much of it may come from the prefix cache."""

import copy
from typing import Any

from soft_sglang.concept_table import AnswerSampling
from soft_sglang.parameters import WIRE_KEY, SoftThinkingParams
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.metrics import request_metrics_for
from soft_sglang.patches.scheduler.stops import let_stops_sleep
from soft_sglang.trace import ClosedThought, RequestTrace

_ATTRIBUTE = "soft_thinking"


def trace_of(req: Any) -> RequestTrace | None:
    """The trace of a request that may think, None for one that cannot."""
    reporter = reporter_of(req)
    return None if isinstance(reporter, ClosedThought) else reporter


def reporter_of(req: Any) -> RequestTrace | ClosedThought | None:
    """What reports of a soft request, None for a discrete one.

    It is made when it is first asked for: at the latest when the request's prefix is matched,
    before its first batch.
    """
    if not hasattr(req, _ATTRIBUTE):
        req.soft_thinking = _begin(req)
    reporter: RequestTrace | ClosedThought | None = req.soft_thinking
    return reporter


def _begin(req: Any) -> RequestTrace | ClosedThought | None:
    custom = req.sampling_params.custom_params
    wire = custom.get(WIRE_KEY) if isinstance(custom, dict) else None
    if wire is None:
        return None
    params = SoftThinkingParams.from_wire(wire)
    # a copy: samples of one request may share the object
    sampling = req.sampling_params = copy.copy(req.sampling_params)
    # logit processors of the client's get its own parameters, to which SGLang added the request
    own = {name: value for name, value in custom.items() if name != WIRE_KEY}
    sampling.custom_params = own if own.keys() - {"__req__"} else None
    metrics = request_metrics_for(req)
    if metrics is not None:
        metrics.request_arrived()
    if params.is_ordinary:
        return ClosedThought(params)
    trace = RequestTrace(
        params,
        prompt_len=len(req.origin_input_ids),
        answer=_answer_sampling(params, req.vocab_size),
        top_k=effective_top_k(sampling.top_k, req.vocab_size),
    )
    if not params.stop_in_thinking:
        let_stops_sleep(req, trace)
    return trace


@patch(
    "managers.schedule_batch.Req._compute_max_prefix_len",
    When.AFTER,
    why="A resumed soft request must not match key-value pairs that somebody computed from ids.",
    how="Caps the match at the prompt.",
    upstream="Not applicable.",
)
def match_prompt_only(max_prefix_len: int, self: Any, *args: Any, **kwargs: Any) -> int:
    """Cap the prefix match of a soft request."""
    trace = trace_of(self)
    if trace is None:
        return max_prefix_len
    trace.prompt_len = len(self.origin_input_ids)  # padded or truncated since the request came
    return min(max_prefix_len, trace.prompt_len)


def effective_top_k(top_k: int, vocab_size: int | None) -> int:
    """A ``top_k`` as SGLang normalises it; one that is no filter is off, and costs nothing."""
    from sglang.srt.sampling.sampling_params import TOP_K_ALL

    return TOP_K_ALL if vocab_size is not None and top_k >= vocab_size else top_k


def _answer_sampling(params: SoftThinkingParams, vocab_size: int | None) -> AnswerSampling:
    """The answer's sampling parameters, as SGLang normalises them (temperature 0 is top-k 1)."""
    from sglang.srt.sampling.sampling_params import SamplingParams

    normal = SamplingParams(
        temperature=params.after_thinking_temperature,
        top_p=params.after_thinking_top_p,
        top_k=params.after_thinking_top_k,
        min_p=params.after_thinking_min_p,
    )
    top_k = effective_top_k(normal.top_k, vocab_size)
    return AnswerSampling(normal.temperature, normal.top_p, top_k, normal.min_p)
