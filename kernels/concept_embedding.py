"""The concept embedding: the weighted sum of the embeddings of a concept's tokens."""

import torch


def concept_embedding(
    weight: torch.Tensor,
    base: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    vocab_start: int = 0,
) -> torch.Tensor:
    """Embed concepts on one vocabulary shard.

    ``sum_k weights[b, k] * weight[ids[b, k] - vocab_start]`` with accumulation in float32
    (arXiv 2505.15778, equation 3). Rows with a single non-zero weight are copied from ``base``,
    so that they are bit-equal to the plain embedding. Ids outside the shard count as zero, so the
    sums of all shards add up to the full sum. Fixed shapes, no host synchronisation.

    Args:
        weight: ``[V, D]`` embedding table, or this rank's shard of it.
        base: ``[B, D]`` plain embeddings of the emitted ids on this shard; not changed.
        ids: ``[B, K]`` integer token ids.
        weights: ``[B, K]`` float32, heaviest first, 0 for unused columns.
        vocab_start: first token id of the shard.

    Returns:
        ``[B, D]`` in the dtype of ``base``.
    """
    local = ids.long() - vocab_start
    inside = (local >= 0) & (local < weight.shape[0])
    local = torch.where(inside, local, 0)
    scale = torch.where(inside, weights, 0.0)
    if weight.dtype == torch.float32:
        mixed = torch.nn.functional.embedding_bag(
            local, weight, per_sample_weights=scale, mode="sum"
        )
    else:
        mixed = torch.zeros(base.shape, dtype=torch.float32, device=base.device)
        for k in range(ids.shape[-1]):
            row = torch.nn.functional.embedding(local[:, k], weight)
            mixed.addcmul_(row.float(), scale[:, k, None])
    soft = (weights > 0).sum(dim=-1, keepdim=True) > 1
    return torch.where(soft, mixed.to(base.dtype), base)


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
    soft = (weights > 0).sum(dim=-1, keepdim=True) > 1
    return torch.where(soft, mixed.to(base.dtype), base)
