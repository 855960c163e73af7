"""What the kernels are compared with: dense PyTorch, and stock SGLang's sampling path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from soft_sglang.kernels.sampling import Sampling
from support.kernel_inputs import TOP_K_OFF, Setting


class DenseStep(NamedTuple):
    """Result of :func:`dense_step`."""

    ids: torch.Tensor
    weights: torch.Tensor
    entropy: torch.Tensor


def dense_step(logits: torch.Tensor, sampling: Sampling, setting: Setting) -> DenseStep:
    """The concept as dense operations over ``[B, V]``, filter by filter, without the noise.

    The order of operations is that of the paper's public implementation.
    """
    p = torch.softmax(logits / sampling.temperatures, dim=-1)
    entropy = -(p * torch.log(p.clamp_min(1e-12))).sum(dim=-1)
    if setting.top_k < logits.shape[-1]:
        smallest = torch.topk(p, setting.top_k, dim=-1).values[:, -1:]
        p = torch.where(p >= smallest, p, 0.0)
        p = p / p.sum(dim=-1, keepdim=True)
    if setting.top_p < 1:
        ordered, ids = torch.sort(p, dim=-1, descending=True)
        before = torch.cumsum(ordered, dim=-1) - ordered
        ordered = torch.where(before < sampling.top_ps[:, None], ordered, 0.0)
        p = torch.zeros_like(p).scatter_(-1, ids, ordered)
        p = p / p.sum(dim=-1, keepdim=True)
    if setting.min_p > 0:
        p = torch.where(p >= sampling.min_ps[:, None] * p.amax(dim=-1, keepdim=True), p, 0.0)
        p = p / p.sum(dim=-1, keepdim=True)
    weights, ids = torch.topk(p, setting.max_topk, dim=-1)
    return DenseStep(ids, weights / weights.sum(dim=-1, keepdim=True), entropy)


def dense_embedding(table: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Gather ``[B, K, D]``, then the weighted sum."""
    embedded = torch.nn.functional.embedding(ids, table)
    return (embedded * weights[..., None].to(table.dtype)).sum(dim=1)


Sampler = Callable[[torch.Tensor], torch.Tensor]
"""From logits ``[B, V]``, which stay as they are, to ids ``[B]``."""


class StockSampling:
    """Stock SGLang's sampling of a batch, without log-probabilities, by backend.

    What cannot be imported is named in :attr:`missing`, with the reason.
    """

    def __init__(self, device: torch.device) -> None:
        self.missing: dict[str, str] = {}
        self._functions: dict[str, dict[str, Any]] = {}
        importers: dict[str, Callable[[], dict[str, Any]]] = {"SGLang, pytorch": _sglang}
        if device.type == "cuda":
            importers = {"SGLang, flashinfer": _flashinfer, **importers}
        else:
            self.missing["SGLang, flashinfer"] = "needs CUDA"
            from soft_sglang.cpu.environment import prepare

            prepare()  # what SGLang needs before its first import on a CPU
        for name, importer in importers.items():
            try:
                self._functions[name] = importer()
            except Exception as error:  # incomplete installations fail in any way
                self.missing[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]

    def samplers(self, sampling: Sampling, setting: Setting) -> dict[str, Sampler]:
        """The samplers of a batch by name."""
        return {
            name: _with_softmax(_sampler(name, functions, sampling, setting), sampling)
            for name, functions in self._functions.items()
        }


def _flashinfer() -> dict[str, Any]:
    from flashinfer.sampling import min_p_sampling_from_probs, top_k_top_p_sampling_from_probs

    try:
        from sgl_kernel import top_k_renorm_prob, top_p_renorm_prob
    except ImportError:
        from flashinfer.sampling import top_k_renorm_probs as top_k_renorm_prob
        from flashinfer.sampling import top_p_renorm_probs as top_p_renorm_prob
    return {
        "top_k_renorm": top_k_renorm_prob,
        "top_p_renorm": top_p_renorm_prob,
        "min_p": min_p_sampling_from_probs,
        "joint": top_k_top_p_sampling_from_probs,
        "simple": _one_of_all,
    }


def _sglang() -> dict[str, Any]:
    from sglang.srt.layers.sampler import (
        sampling_from_probs_torch,
        top_k_top_p_min_p_sampling_from_probs_torch,
    )

    return {
        "simple": sampling_from_probs_torch,
        "filtered": top_k_top_p_min_p_sampling_from_probs_torch,
    }


def _one_of_all(probs: torch.Tensor) -> torch.Tensor:
    return torch.multinomial(probs, num_samples=1).view(-1)


def _sampler(name: str, functions: dict[str, Any], sampling: Sampling, setting: Setting) -> Sampler:
    """From probabilities to ids, as ``Sampler._sample_from_probs`` chooses."""
    if setting.top_p >= 1 and setting.top_k >= TOP_K_OFF and setting.min_p <= 0:
        return functions["simple"]
    if name == "SGLang, pytorch":
        positions = torch.zeros_like(sampling.top_ks, dtype=torch.int64)
        return lambda probs: functions["filtered"](
            probs,
            sampling.top_ks,
            sampling.top_ps,
            sampling.min_ps,
            setting.min_p > 0,
            None,
            positions,
        )
    if setting.min_p > 0:
        return lambda probs: functions["min_p"](
            functions["top_p_renorm"](
                functions["top_k_renorm"](probs, sampling.top_ks), sampling.top_ps
            ),
            sampling.min_ps,
        )
    return lambda probs: functions["joint"](
        probs, sampling.top_ks, sampling.top_ps, filter_apply_order="joint"
    )


def _with_softmax(sample: Sampler, sampling: Sampling) -> Sampler:
    """What comes before: SGLang works in place; here on another tensor, with the same traffic."""
    probs: torch.Tensor | None = None

    def run(logits: torch.Tensor) -> torch.Tensor:
        nonlocal probs
        if probs is None:
            probs = torch.empty_like(logits, dtype=torch.float32)
        torch.div(logits, sampling.temperatures, out=probs)
        probs[:] = torch.softmax(probs, dim=-1)
        return sample(probs)

    return run
