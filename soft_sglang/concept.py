"""A concept: what a request is fed after one step of its thinking."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch


class Concept(NamedTuple):
    """The input that follows one committed step."""

    ids: np.ndarray
    """int64, the emitted token, then the others, heaviest first."""
    weights: np.ndarray
    """float32; but for the first none is 0."""
    hidden: torch.Tensor | None = None
    """``[D]``, fed instead of the mixture."""

    @property
    def is_token(self) -> bool:
        """Whether it is the emitted token alone."""
        return len(self.ids) == 1 and self.hidden is None

    def pairs(self) -> list[list[float]]:
        """``[id, weight]`` of the mixture; empty if a hidden state was fed."""
        if self.hidden is not None:
            return []
        return [[int(i), float(w)] for i, w in zip(self.ids, self.weights, strict=True) if w]


class Mixtures(NamedTuple):
    """The inputs of ``R`` rows."""

    ids: torch.Tensor
    """``[R, K]`` int64."""
    weights: torch.Tensor
    """``[R, K]`` float32."""
    fed_hidden: torch.Tensor | None = None
    """``[R]`` bool, rows whose input is a hidden state; None: there is none."""
    hidden: torch.Tensor | None = None
    """``[R, D]``, the hidden states."""

    def to(self, device: torch.device) -> "Mixtures":
        """The same on a device, without waiting for it."""

        def upload(column: torch.Tensor) -> torch.Tensor:
            pinned = column.pin_memory() if device.type == "cuda" else column
            return pinned.to(device, non_blocking=True)

        ids, weights, *rest = self
        hidden = (None if column is None else upload(column) for column in rest)
        return Mixtures(upload(ids), upload(weights), *hidden)


def mixtures_of(concepts: Sequence[Concept], width: int) -> Mixtures:
    """Concepts as rows of ``width`` columns, on the host."""
    ids = torch.zeros(len(concepts), width, dtype=torch.int64)
    weights = torch.zeros(len(concepts), width, dtype=torch.float32)
    for row, concept in enumerate(concepts):
        ids[row, : len(concept.ids)] = torch.from_numpy(concept.ids)
        weights[row, : len(concept.ids)] = torch.from_numpy(concept.weights)
    vectors = {row: c.hidden for row, c in enumerate(concepts) if c.hidden is not None}
    if not vectors:
        return Mixtures(ids, weights)
    some = next(iter(vectors.values()))
    hidden = some.new_zeros(len(concepts), len(some))
    for row, vector in vectors.items():
        hidden[row] = vector
    fed_hidden = torch.tensor([row in vectors for row in range(len(concepts))])
    return Mixtures(ids, weights, fed_hidden, hidden)
