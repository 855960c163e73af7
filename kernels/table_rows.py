"""The rows of a concept table, as the kernels see them."""

from typing import NamedTuple

import torch

DISCRETE, THINKING, ANSWERING, GUIDED = range(4)
"""Values of :attr:`TableRows.phase`. GUIDED: a policy other than soft thinking makes the next
input; to a kernel it is as DISCRETE."""

INTEGERS = ("max_topk", "noise", "seed", "length_threshold", "think_end", "answer_top_k")
"""Columns of :attr:`TableRows.integers`."""
REALS = (
    "gumbel_temperature",
    "dirichlet_alpha",
    "entropy_threshold",
    "answer_temperature",
    "answer_top_p",
    "answer_min_p",
)
"""Columns of :attr:`TableRows.reals`."""


class TableRows(NamedTuple):
    """The tensors of a concept table with ``R`` rows, one per request slot; all contiguous."""

    ids: torch.Tensor
    """``[R, K]`` int64, tokens of the next input; the emitted one first."""
    weights: torch.Tensor
    """``[R, K]`` float32; all but the first 0 where the next input is the emitted token alone. The
    others that are not 0 come before those that are; they may be negative, and the first may be 0
    (soft thinking's never are)."""
    phase: torch.Tensor
    """``[R]`` int64."""
    run: torch.Tensor
    """``[R]`` int64, consecutive low-entropy steps."""
    step: torch.Tensor
    """``[R]`` int64, emitted tokens."""
    integers: torch.Tensor
    """``[R, len(INTEGERS)]`` int64, parameters."""
    reals: torch.Tensor
    """``[R, len(REALS)]`` float32, parameters."""

    def parameters(self, slots: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters of rows by name, each ``[B]``."""
        integers, reals = self.integers[slots], self.reals[slots]
        named = dict(zip(INTEGERS, integers.unbind(-1), strict=True))
        named.update(zip(REALS, reals.unbind(-1), strict=True))
        return named


def where_rows(mask: torch.Tensor, values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Rows ``[B, ...]`` of ``values`` where ``mask`` ``[B]`` bool, else of ``others``."""
    return torch.where(mask.view(-1, *[1] * (others.dim() - 1)), values, others)
