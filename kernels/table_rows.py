"""The rows of a concept table, as the kernels see them."""

from typing import NamedTuple

import torch

DISCRETE, THINKING, ANSWERING, GUIDED = range(4)
"""Values of :attr:`TableRows.phase`. GUIDED: a policy other than soft thinking makes the next
input; to a kernel it is as DISCRETE."""

STATE = ("phase", "run", "step", "thought", "forced", "matched")
"""Columns of :attr:`TableRows.state`."""
INTEGERS = (
    "max_topk",
    "noise",
    "seed",
    "length_threshold",
    "max_thinking_steps",
    "end_length",
    "forced_length",
    "first_forced",
    "answer_top_k",
)
"""Columns of :attr:`TableRows.integers`; ``first_forced`` is the first of the ``forced_ids``."""
REALS = (
    "gumbel_temperature",
    "dirichlet_alpha",
    "entropy_threshold",
    "answer_temperature",
    "answer_top_p",
    "answer_min_p",
)
"""Columns of :attr:`TableRows.reals`."""

MARKER_LIMIT = 16
"""Largest number of tokens of a marker that ends or begins a thought."""
FORCED_LIMIT = 64
"""Largest number of tokens that are emitted to end a thought."""
NO_LIMIT = 2**31 - 1
"""A number of steps that is never reached."""
NO_TOKEN = -1
"""Fills a sequence of tokens up: no token is equal to it."""


class TableRows(NamedTuple):
    """The tensors of a concept table with ``R`` rows, one per request slot; all contiguous."""

    ids: torch.Tensor
    """``[R, K]`` int64, tokens of the next input; the emitted one first."""
    weights: torch.Tensor
    """``[R, K]`` float32; all but the first 0 where the next input is the emitted token alone. The
    others that are not 0 come before those that are; they may be negative, and the first may be 0
    (soft thinking's never are)."""
    state: torch.Tensor
    """``[R, len(STATE)]`` int64; see the properties."""
    integers: torch.Tensor
    """``[R, len(INTEGERS)]`` int64, parameters."""
    reals: torch.Tensor
    """``[R, len(REALS)]`` float32, parameters."""
    end_ids: torch.Tensor
    """``[R, MARKER_LIMIT]`` int64, parameter: the tokens that end thinking when they are emitted
    one after the other, then :data:`NO_TOKEN`."""
    forced_ids: torch.Tensor
    """``[R, FORCED_LIMIT]`` int64, parameter: the tokens that are emitted to end thinking."""

    @property
    def phase(self) -> torch.Tensor:
        """``[R]`` int64."""
        return self.state[:, STATE.index("phase")]

    @property
    def run(self) -> torch.Tensor:
        """``[R]`` int64, consecutive low-entropy steps."""
        return self.state[:, STATE.index("run")]

    @property
    def step(self) -> torch.Tensor:
        """``[R]`` int64, emitted tokens."""
        return self.state[:, STATE.index("step")]

    @property
    def thought(self) -> torch.Tensor:
        """``[R]`` int64, emitted tokens of thoughts."""
        return self.state[:, STATE.index("thought")]

    @property
    def forced(self) -> torch.Tensor:
        """``[R]`` int64, tokens of :attr:`forced_ids` that are emitted; 0: none is forced."""
        return self.state[:, STATE.index("forced")]

    @property
    def matched(self) -> torch.Tensor:
        """``[R]`` int64: bit i is set if the last i + 1 tokens are the first of the marker looked
        for, which is :attr:`end_ids` in a thought.
        """
        return self.state[:, STATE.index("matched")]

    def parameters(self, slots: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parameters of rows by name, each ``[B]``."""
        integers, reals = self.integers[slots], self.reals[slots]
        named = dict(zip(INTEGERS, integers.unbind(-1), strict=True))
        named.update(zip(REALS, reals.unbind(-1), strict=True))
        return named


def where_rows(mask: torch.Tensor, values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Rows ``[B, ...]`` of ``values`` where ``mask`` ``[B]`` bool, else of ``others``."""
    return torch.where(mask.view(-1, *[1] * (others.dim() - 1)), values, others)
