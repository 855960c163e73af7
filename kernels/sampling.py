"""Sampling parameters of the rows of a batch."""

from collections.abc import Mapping
from typing import NamedTuple

import torch

_AFTER_THINKING = ("answer_temperature", "answer_top_p", "answer_top_k", "answer_min_p")
"""Parameters of a table row, in the order of :class:`Sampling`."""


class Sampling(NamedTuple):
    """Sampling parameters of a batch, as SGLang keeps them."""

    temperatures: torch.Tensor
    """``[B, 1]`` float32, above 0."""
    top_ps: torch.Tensor
    """``[B]`` float32 in (0, 1]."""
    top_ks: torch.Tensor
    """``[B]`` int32, at least 1; at least the vocabulary size means off."""
    min_ps: torch.Tensor
    """``[B]`` float32 in [0, 1]."""

    def of_rows(self, rows: torch.Tensor | None) -> "Sampling":
        """Of the rows ``[S]`` int64; None: all."""
        if rows is None:
            return self
        return Sampling(*(column.index_select(0, rows) for column in self))

    def after_thinking(
        self, answering: torch.Tensor, parameters: Mapping[str, torch.Tensor]
    ) -> "Sampling":
        """With the parameters of the answer where ``answering`` ``[B]`` bool.

        ``parameters``: of the rows, from ``TableRows.parameters``.
        """
        columns = []
        for own, name in zip(self, _AFTER_THINKING, strict=True):
            after = parameters[name].to(own.dtype).view(own.shape)
            columns.append(torch.where(answering.view(own.shape), after, own))
        return Sampling(*columns)
