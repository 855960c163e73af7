"""Sampling parameters of the rows of a batch."""

from collections.abc import Mapping
from typing import NamedTuple

import torch


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

        def chosen(own: torch.Tensor, name: str) -> torch.Tensor:
            after = parameters[name].to(own.dtype).view(own.shape)
            return torch.where(answering.view(own.shape), after, own)

        return Sampling(
            temperatures=chosen(self.temperatures, "answer_temperature"),
            top_ps=chosen(self.top_ps, "answer_top_p"),
            top_ks=chosen(self.top_ks, "answer_top_k"),
            min_ps=chosen(self.min_ps, "answer_min_p"),
        )

    def joint(self, all_rows: bool) -> torch.Tensor:
        """``[B]`` bool, rows whose tokens are drawn with top-p as a share of the whole mass.

        ``all_rows``: see ``StepPlan.joint_filters``. A row's own min-p decides, not a neighbour's.
        """
        return torch.ones_like(self.min_ps, dtype=torch.bool) if all_rows else self.min_ps <= 0
