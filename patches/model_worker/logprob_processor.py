"""Log-probabilities: of the id that is emitted."""

from typing import Any

import torch

from soft_sglang.patches.model_worker.sampler import SamplingStep
from soft_sglang.patches.record import When, patch


@patch(
    "layers.logprob_processor.OutputLogprobProcessor.compute_logprobs",
    When.BEFORE,
    why="The sampler computes them before the thinking rows' ids are replaced.",
    how="Replaces the ids here too.",
    upstream="Not applicable.",
    fingerprint="4ec49f40acc4858b",
)
def use_final_ids(
    self: Any,
    logprobs: torch.Tensor,
    top_logprobs_nums: list[int],
    token_ids_logprobs: list[list[int]],
    batch_next_token_ids: torch.Tensor,
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Replace the ids of thinking rows."""
    step = SamplingStep.active
    if step is None:
        return None
    ids = step.final_ids(batch_next_token_ids)
    return (self, logprobs, top_logprobs_nums, token_ids_logprobs, ids), {}
