"""Batches that no captured graph can compute."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from soft_sglang.patches.model_worker.forward_batch import SoftBatch, traces_in
from soft_sglang.patches.record import When, patch
from soft_sglang.policies.registry import policy_named
from soft_sglang.trace import RequestTrace


def must_be_eager(model_runner: Any, forward_batch: Any, soft: SoftBatch) -> bool:
    """Whether a soft batch needs what SGLang's graphs do not hold.

    A prefill's graph embeds ids, and a decode step's graph keeps hidden states only if the server
    was started with them. SGLang itself raises in the second case, and ends.
    """
    if not forward_batch.forward_mode.is_decode():
        return bool(soft.inputs)
    kept = getattr(model_runner.decode_cuda_graph_runner, "capture_hidden_mode", None)
    return kept is not None and kept < forward_batch.capture_hidden_mode


def server_captures_hidden() -> bool:
    """Whether the server was started with hidden states in its graphs."""
    from sglang.srt.model_executor.forward_batch_info import get_server_return_hidden_states_mode

    captures: bool = get_server_return_hidden_states_mode().need_capture()
    return captures


_WHY = "Ranks that attend apart gather their tokens: with a graph all do, or none does."
_UPSTREAM = "Not applicable."


@patch(
    "managers.scheduler_components.dp_attn._local_prefill_cuda_graph_vote",
    When.AFTER,
    why=_WHY,
    how=(
        "Votes against a prefill's graph where this rank is to feed concepts in the step, or needs "
        "hidden states that the graph does not keep."
    ),
    upstream=_UPSTREAM,
)
def vote_on_prefill(vote: bool, *, local_batch: Any, **kwargs: Any) -> bool:
    """This rank's vote on the graph of a step in which some rank prefills."""
    if not vote or local_batch is None or not local_batch.reqs:
        return vote
    traces = traces_in(local_batch)
    if not traces:
        return vote
    # a decode batch would be seen as a prefill of one token each
    decodes = bool(local_batch.decoding_reqs) or not local_batch.forward_mode.is_extend()
    feeds = decodes or any(trace.concepts for trace in traces)
    return not feeds and (not _feed_hidden(traces) or server_captures_hidden())


@patch(
    "managers.scheduler_components.dp_attn._local_decode_cuda_graph_vote",
    When.AFTER,
    why=_WHY,
    how="Votes against a decode step's graph that does not keep what a policy feeds.",
    upstream=_UPSTREAM,
)
def vote_on_decode(vote: bool, *, local_batch: Any, **kwargs: Any) -> bool:
    """This rank's vote on the graph of a decode step."""
    if not vote or local_batch is None or not local_batch.reqs:
        return vote
    return not _feed_hidden(traces_in(local_batch)) or server_captures_hidden()


def _feed_hidden(traces: Sequence[RequestTrace]) -> bool:
    """Whether a request's policy needs the last hidden states."""
    policies = [policy_named(trace.params.policy) for trace in traces]
    return any(policy is not None and policy.feeds_hidden for policy in policies)


@contextmanager
def without_graphs(model_runner: Any) -> Iterator[None]:
    """While active, the model runner computes everything eagerly."""
    names = ("decode_cuda_graph_runner", "prefill_cuda_graph_runner")
    runners = {name: getattr(model_runner, name) for name in names}
    for name in names:
        setattr(model_runner, name, None)
    try:
        yield
    finally:
        for name, runner in runners.items():
            setattr(model_runner, name, runner)
