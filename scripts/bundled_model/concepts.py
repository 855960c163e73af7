"""Concept tokens in plain PyTorch: weights over the whole (64-token) vocabulary.

Training and evaluation share these functions; they follow the order of the engine's concept step
and serve as an independent, readable account of it.
"""

import torch
from torch import Tensor

TOP_P, TOP_K, MIN_P, MAX_TOPK = 0.95, 30, 0.001, 10


def filtered(probabilities: Tensor) -> Tensor:
    """Top-k, top-p, min-p in this order, renormalised after each.

    probabilities: [..., vocabulary], fp32. Returns the same shape; rows sum to 1.
    """
    sorted_p, order = probabilities.sort(dim=-1, descending=True, stable=True)
    sorted_p[..., TOP_K:] = 0
    sorted_p /= sorted_p.sum(-1, keepdim=True)
    sorted_p = sorted_p.where(sorted_p.cumsum(-1) - sorted_p < TOP_P, 0)
    sorted_p /= sorted_p.sum(-1, keepdim=True)
    sorted_p = sorted_p.where(sorted_p >= MIN_P * sorted_p[..., :1], 0)
    sorted_p /= sorted_p.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, sorted_p)


def concept(probabilities: Tensor) -> Tensor:
    """The `MAX_TOPK` largest of `filtered` probabilities, renormalised. Same shape."""
    kept = filtered(probabilities)
    values, ids = kept.topk(MAX_TOPK, dim=-1)
    return torch.zeros_like(kept).scatter(-1, ids, values / values.sum(-1, keepdim=True))


def gumbel_softmax(weights: Tensor, tau: float, generator: torch.Generator) -> Tensor:
    """``softmax((log w + g) / tau)`` with g ~ Gumbel(0, 1); zero weights stay zero."""
    uniform = torch.rand(weights.shape, generator=generator).clamp_min(1e-20)
    return torch.softmax((weights.log() - (-uniform.log()).log()) / tau, dim=-1)
