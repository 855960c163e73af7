"""Concept tokens in plain PyTorch.

Training and evaluation share these functions; they follow the order of the engine's concept step
and serve as an independent, readable account of it.
"""

import torch
from torch import Tensor

TOP_P, TOP_K, MIN_P, MAX_TOPK = 0.95, 30, 0.001, 10


def filtered(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Top-k, top-p, min-p in this order, renormalised after each.

    probabilities: [..., vocabulary], fp32. Returns the weights that are left, [..., TOP_K],
    descending, summing to 1, and their token ids.
    """
    weights, ids = probabilities.topk(TOP_K, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    weights = weights.where(weights.cumsum(-1) - weights < TOP_P, 0)
    weights = weights / weights.sum(-1, keepdim=True)
    weights = weights.where(weights >= MIN_P * weights[..., :1], 0)
    return weights / weights.sum(-1, keepdim=True), ids


def concept(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The `MAX_TOPK` largest of `filtered` probabilities, renormalised, with their ids."""
    weights, ids = filtered(probabilities)
    weights = weights[..., :MAX_TOPK]
    return weights / weights.sum(-1, keepdim=True), ids[..., :MAX_TOPK]


def gumbel_softmax(weights: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """``softmax((log w + g) / tau)`` with g ~ Gumbel(0, 1); zero weights stay zero."""
    uniform = torch.rand(weights.shape, generator=generator).clamp_min(1e-20)
    return torch.softmax((weights.log() - (-uniform.log()).log()) / tau, dim=-1)


def mixture(weights: Tensor, ids: Tensor, table: Tensor) -> Tensor:
    """The weighted sum of embeddings: weights and ids [..., k], table [vocabulary, width]."""
    bags = torch.nn.functional.embedding_bag(
        ids.flatten(0, -2), table, per_sample_weights=weights.flatten(0, -2), mode="sum"
    )
    return bags.unflatten(0, ids.shape[:-1])
