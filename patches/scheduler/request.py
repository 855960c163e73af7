"""The scheduler's request: its trace, and how much of it may come from the prefix cache."""

import copy
from typing import Any

from soft_sglang.concept_table import AnswerSampling
from soft_sglang.parameters import WIRE_KEY, SoftThinkingParams
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.metrics import metrics_for
from soft_sglang.trace import RequestTrace

_ATTRIBUTE = "soft_thinking"


def trace_of(req: Any) -> RequestTrace | None:
    """The trace of a soft request, None for a discrete one."""
    trace: RequestTrace | None = getattr(req, _ATTRIBUTE, None)
    return trace


@patch(
    "managers.schedule_batch.Req.__init__",
    When.AFTER,
    why="The scheduler keeps the committed trace of a soft request.",
    how="Builds it from the parameters in custom_params.",
    upstream="Not applicable.",
)
def start_trace(_result: None, self: Any, *args: Any, **kwargs: Any) -> None:
    """Attach a trace to a soft request."""
    custom = self.sampling_params.custom_params
    wire = custom.get(WIRE_KEY) if isinstance(custom, dict) else None
    if wire is None:
        return
    params = SoftThinkingParams.from_wire(wire)
    # a copy: samples of one request may share the object
    sampling = self.sampling_params = copy.copy(self.sampling_params)
    # logit processors of the client's get its own parameters, to which SGLang added the request
    own = {name: value for name, value in custom.items() if name != WIRE_KEY}
    sampling.custom_params = own if own.keys() - {"__req__"} else None
    self.soft_thinking = RequestTrace(
        params,
        prompt_len=len(self.origin_input_ids),
        answer=_answer_sampling(params, self.vocab_size),
        top_k=effective_top_k(sampling.top_k, self.vocab_size),
    )
    metrics = metrics_for(self)
    if metrics is not None:
        metrics.request_arrived()


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
