"""The concept embedding: the weighted sum of the embeddings of a concept's tokens."""

import torch
import torch.nn.functional as F

from soft_sglang.kernels import concept_embedding_triton

_ROWS_AT_ONCE = 64
"""Rows whose embeddings the reference gathers together: ``[64, K, D]`` is as large as it gets."""


def concept_embedding(
    weight: torch.Tensor,
    input_ids: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    slots: torch.Tensor,
    vocab_start: int = 0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Embed the inputs of a batch on one vocabulary shard: concepts, or plain tokens.

    A row whose concept has a non-zero weight beside the first is
    ``sum_k weights[slot, k] * weight[ids[slot, k] - vocab_start]``, accumulated in float32
    (arXiv 2505.15778, equation 3). Any other row is the embedding of its input id, bit for bit.
    Ids outside the shard count as zero, and nothing is read for them, so the sums of all shards
    add up to the full sum. Fixed shapes and no host synchronisation: a graph can hold it. A Triton
    kernel on CUDA tensors, PyTorch elsewhere.

    Args:
        weight: ``[V, D]`` embedding table, or this rank's shard of it; the last stride is 1.
        input_ids: ``[N]`` integer token ids, contiguous. Where a row is a mixture it is the
            concept's first token; the kernel relies on that.
        ids: ``[R, K]`` integer, the concept table's token ids.
        weights: ``[R, K]`` float32. After the first, the non-zero ones come before the zeros.
        slots: ``[N]`` integer, contiguous, the row of the concept table for each input.
        vocab_start: first token id of the shard.
        out: ``[N, D]`` tensor to write to, in the table's dtype.

    Returns:
        ``out``, or a new tensor.

    Raises:
        ValueError: ``slots`` has another shape than ``input_ids``.
    """
    if slots.shape != input_ids.shape:
        raise ValueError(f"slots: {tuple(slots.shape)} for inputs {tuple(input_ids.shape)}")
    if not weight.is_cuda:
        return concept_embedding_torch(weight, input_ids, ids[slots], weights[slots], vocab_start)
    if out is None:
        out = weight.new_empty(input_ids.shape[0], weight.shape[1])
    return concept_embedding_triton.concept_embedding(
        weight, input_ids, ids, weights, slots, vocab_start, out
    )


def warm_up(weight: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> None:
    """Compile the kernel for batches of every size, on the concept table's padding row."""
    for power in range(10):
        slots = torch.zeros(1 << power, dtype=torch.int64, device=weight.device)
        out = weight.new_empty(len(slots), weight.shape[1])
        concept_embedding_triton.concept_embedding(weight, slots, ids, weights, slots, 0, out)


def _shard_rows(
    weight: torch.Tensor, ids: torch.Tensor, vocab_start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row numbers in the shard, 0 for ids that are not in it, and which are."""
    local = ids.long() - vocab_start
    inside = (local >= 0) & (local < weight.shape[0])
    return torch.where(inside, local, 0), inside


def concept_embedding_torch(
    weight: torch.Tensor,
    input_ids: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    vocab_start: int,
) -> torch.Tensor:
    """The reference; ``ids`` and ``weights`` are ``[N, K]`` here."""
    local, inside = _shard_rows(weight, input_ids, vocab_start)
    plain = F.embedding(local, weight).masked_fill_(~inside[:, None], 0)
    local, inside = _shard_rows(weight, ids, vocab_start)
    scale = torch.where(inside, weights, 0.0)
    if weight.dtype == torch.float32:
        mixed = F.embedding_bag(local, weight, per_sample_weights=scale, mode="sum")
    else:
        parts = [
            torch.bmm(some_scale[:, None], F.embedding(some, weight).float()).squeeze(1)
            for some, some_scale in zip(
                local.split(_ROWS_AT_ONCE), scale.split(_ROWS_AT_ONCE), strict=True
            )
        ]
        mixed = torch.cat(parts)
    return torch.where(_is_mixture(weights), mixed.to(plain.dtype), plain)


def mix_embeddings(
    embedded: torch.Tensor, base: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The same sum for tables that can only be read through their own ``forward``.

    Args:
        embedded: ``[B, K, D]`` embeddings of the concept's tokens.
        base: ``[B, D]`` plain embeddings of the emitted ids.
        weights: ``[B, K]`` float32.

    Returns:
        ``[B, D]`` in the dtype of ``base``.
    """
    mixed = torch.einsum("bkd,bk->bd", embedded.float(), weights)
    return torch.where(_is_mixture(weights), mixed.to(base.dtype), base)


def _is_mixture(weights: torch.Tensor) -> torch.Tensor:
    """``[N, 1]`` bool: not the first token alone."""
    return (weights[:, 1:] != 0).any(dim=-1, keepdim=True)
