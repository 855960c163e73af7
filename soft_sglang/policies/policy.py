"""What a thinking policy is: from the logits of its rows to their next input."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch

from soft_sglang.fields import Field
from soft_sglang.kernels import noise

MAX_PARAMETERS = 8
MAX_STATE = 6


class RequestFacts(NamedTuple):
    """What a policy may know of a request when it resolves its parameters."""

    max_new_tokens: int | None
    think_end_length: int
    """Number of tokens of the think-end marker."""
    token_id: Callable[[str, str], int]
    """``(field, text)`` to the id of a string that is one token; ValueError if it is not."""


@dataclass(frozen=True)
class PolicyStep:
    """One step of the ``B`` rows of a batch that follow one policy; tensors on the device."""

    logits: torch.Tensor
    """``[B, V]`` float32, penalised and masked, before temperature."""
    p: torch.Tensor
    """``[B, C]`` float32, probabilities of the heaviest tokens after temperature, top-k, top-p and
    min-p, each renormalised; descending, 0 where a filter dropped a token."""
    drawable: torch.Tensor
    """``[B, C]`` float32, the same, filtered as the running sampler of SGLang filters (PyTorch's
    takes top-p as a share of the whole mass even under top-k), not renormalised."""
    ids: torch.Tensor
    """``[B, C]`` int64, the tokens of both."""
    entropy: torch.Tensor
    """``[B]`` float32, nats, after temperature, before any filter."""
    seed: torch.Tensor
    """``[B]`` int64, of the request."""
    step: torch.Tensor
    """``[B]`` int64, output position of the token to come, from 0."""
    think_end: torch.Tensor
    """``[B]`` int64, the think-end token; the first one of a marker of several."""
    think_end_allowed: torch.Tensor
    """``[B]`` bool, False where a grammar or a bias forbids to end thinking."""
    max_topk: torch.Tensor
    """``[B]`` int64."""
    parameters: Mapping[str, torch.Tensor]
    """``[B]`` float64 each, the policy's own, by name."""
    state: Mapping[str, torch.Tensor]
    """``[B]`` float64 each, as the last step left it; 0 at the first one."""

    @cached_property
    def token(self) -> torch.Tensor:
        """``[B]`` int64, a token drawn as chain of thought draws it.

        The draw is a pure function of the seed, the position and the distribution (the largest of
        ``log p + Gumbel noise``), so a run can be replayed and does not depend on neighbours.
        """
        drawn = noise.sampling_gumbel(self.seed, self.step, self.ids)
        best = (torch.log(self.drawable) + drawn).argmax(dim=-1, keepdim=True)
        return self.ids.gather(-1, best).squeeze(-1)

    def heaviest(self, count: torch.Tensor | None = None) -> torch.Tensor:
        """``p`` of the ``count`` ``[B]`` heaviest tokens, renormalised; default: ``max_topk``."""
        count = self.max_topk if count is None else count
        rank = torch.arange(self.p.shape[-1], device=self.p.device)
        return _normalised(torch.where(rank < count[:, None], self.p, 0.0))

    def heaviest_with(self, token: torch.Tensor) -> torch.Tensor:
        """As :meth:`heaviest`, ``max_topk`` tokens of which one is ``token`` ``[B]``."""
        return heaviest_with(self.p, self.ids, token, self.max_topk)


def heaviest_with(
    p: torch.Tensor, ids: torch.Tensor, token: torch.Tensor, count: torch.Tensor
) -> torch.Tensor:
    """The ``count`` heaviest of descending ``p``, of which one is ``token``, renormalised.

    Args:
        p, ids: ``[B, C]``.
        token, count: ``[B]``.
    """
    own = ids == token[:, None]
    rank_of_others = torch.cumsum(~own, dim=-1)
    kept = torch.where(own | (rank_of_others < count[:, None]), p, 0.0)
    # a drawn token that the filters of a mixture drop weighs nothing, and may be the only one
    return torch.where(kept.sum(dim=-1, keepdim=True) > 0, _normalised(kept), own.float())


def _normalised(p: torch.Tensor) -> torch.Tensor:
    return p / p.sum(dim=-1, keepdim=True)


class Choice(NamedTuple):
    """What a policy makes of a step.

    The next input is ``sum(weights * E[ids])``, or the hidden state. Where the token completes the
    think-end marker it is exactly the embedding of the token, and thinking is over; Cold Stop and
    the budget may still replace the token.
    """

    token: torch.Tensor
    """``[B]`` int64, what the request emits."""
    ids: torch.Tensor
    """``[B, C]`` int64, in any order; the emitted token need not be there."""
    weights: torch.Tensor
    """``[B, C]`` float32, of any sign; at most ``columns`` of them are not 0, the emitted token's
    column counted in any case."""
    state: Mapping[str, torch.Tensor] = {}
    """``[B]`` each, what changes."""
    hidden: torch.Tensor | None = None
    """``[B]`` bool, rows that are fed their last hidden state instead of the sum."""


class Policy(ABC):
    """A way of thinking. Objects hold no state: that of a request is in its row.

    ``choose`` must not wait for the device: no ``.item()``, no shape that depends on values.
    """

    name: ClassVar[str]
    """Value of the request's ``policy``."""
    fields: ClassVar[tuple[Field, ...]] = ()
    """Parameters of a request under this policy."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Other defaults for the parameters that all policies share."""
    parameters: ClassVar[tuple[str, ...]] = ()
    """Names of the numbers that :meth:`resolve` gives; at most :data:`MAX_PARAMETERS`."""
    state: ClassVar[tuple[str, ...]] = ()
    """Names of what a row remembers from step to step; at most :data:`MAX_STATE`."""
    feeds_hidden: ClassVar[bool] = False
    """Some next inputs are the last hidden state."""
    mixes_answer: ClassVar[bool] = False
    """The policy goes on after thinking, with the sampling parameters of the answer."""

    def resolve(self, values: Mapping[str, Any], request: RequestFacts) -> tuple[float, ...]:
        """The numbers of :attr:`parameters`, from the values of :attr:`fields`."""
        return tuple(float(values[name]) for name in self.parameters)

    def columns(self, max_topk: int, values: Mapping[str, Any]) -> int:
        """How many columns of the concept table a request may need."""
        return max_topk

    @abstractmethod
    def choose(self, step: PolicyStep) -> Choice:
        """Make the next input of every row."""


def alone(token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids ``[B, 1]`` and weights of tokens that are fed as they are."""
    return token[:, None], torch.ones_like(token[:, None], dtype=torch.float32)


def one_hot(ids: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Weights ``[B, C]``: 1 where ``ids`` is the row's token ``[B]``."""
    return (ids == token[:, None]).float()
