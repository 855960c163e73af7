"""Batches that no captured graph can compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from soft_sglang.patches.model_worker.forward_batch import SoftBatch


def must_be_eager(model_runner: Any, forward_batch: Any, soft: SoftBatch) -> bool:
    """Whether a soft batch needs what SGLang's graphs do not hold.

    A prefill's graph embeds ids, and a decode step's graph keeps hidden states only if the server
    was started with them. SGLang itself raises in the second case, and ends.
    """
    if not forward_batch.forward_mode.is_decode():
        return bool(soft.inputs)
    kept = getattr(model_runner.decode_cuda_graph_runner, "capture_hidden_mode", None)
    return kept is not None and kept < forward_batch.capture_hidden_mode


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
