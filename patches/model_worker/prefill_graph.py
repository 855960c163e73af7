"""Prefill graph: not for the prefill of a resumed soft request."""

from collections.abc import Callable
from typing import Any

from soft_sglang.patches.model_worker.forward_batch import soft_batch_of
from soft_sglang.patches.record import When, patch


@patch(
    "model_executor.runner.prefill_cuda_graph_runner.PrefillCudaGraphRunner.can_run_graph",
    When.AROUND,
    why="A captured prefill embeds ids; it has no place for a resumed request's concepts.",
    how="Runs such a prefill eagerly.",
    upstream="Not applicable.",
    fingerprint="030411fbb851f2c4",
)
def run_concepts_eagerly(original: Callable[..., bool], self: Any, forward_batch: Any) -> bool:
    """Whether a prefill may use a captured graph."""
    soft = soft_batch_of(forward_batch)
    if soft is not None and soft.inputs:
        return False
    return original(self, forward_batch)
