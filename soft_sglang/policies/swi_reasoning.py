"""SwiReasoning: latent and explicit thinking in turn, by the trend of the entropy."""

from collections.abc import Mapping
from typing import Any

import torch

from soft_sglang.fields import Field, Kind
from soft_sglang.kernels.concept_step import top_candidates
from soft_sglang.policies.policy import (
    Choice,
    Policy,
    PolicyStep,
    RequestFacts,
    heaviest_with,
    one_hot,
)

_DEFAULT_LENGTH = 32768
"""Number of new tokens over which the blends of an unlimited request grow: the paper's limit."""


class SwiReasoning(Policy):
    """Switches between feeding mixtures (latent) and sampled tokens (explicit).

    arXiv 2510.05069. Thinking begins latent. The reference is the entropy at which the current
    block began. A latent block ends when the entropy falls below its reference; an explicit one
    when it rises above it and the block has lasted ``swi_window_size`` steps. The first input of an
    explicit block is ``b e + (1 - b) E[think_end]``, that of a latent block ``a e + (1 - a)
    E[think_start]``, ``e`` being the mixture; ``a`` and ``b`` grow from ``swi_alpha`` and
    ``swi_beta`` to 1 over the request's ``max_new_tokens``. With ``swi_max_switch_count`` the token
    after that many switches to explicit thinking is the think-end token, and the answer begins; a
    grammar that forbids it there delays it.

    As in the authors' code, and not said in the paper: entropy and mixture are those of the model's
    distribution at temperature 1, without filters; the emitted token is the sampled one, also where
    a mixture is fed. Different here: the paper mixes the whole vocabulary, here it is ``max_topk``
    tokens, the sampled one among them; the second bound of the paper, which cuts answers off, is
    the request's ``max_new_tokens``; their code's line break in the first input and its list of
    tokens of formulas are left out. Without Cold Stop unless the request sets its threshold.
    """

    name = "swi_reasoning"
    fields = (
        Field("swi_alpha", Kind.NUMBER, low=0, high=1, default=1.0),
        Field("swi_beta", Kind.NUMBER, low=0, high=1, default=0.7),
        Field("swi_window_size", Kind.INTEGER, low=1, high=2**31 - 1, default=512),
        Field("swi_max_switch_count", Kind.INTEGER, low=1, high=2**31 - 1, also=-1, default=-1),
        Field("swi_think_start_str", Kind.TEXT, default="<think>"),
    )
    parameters = ("alpha", "beta", "window", "max_switches", "think_start", "length")
    state = ("begun", "explicit", "stay", "reference", "switches", "stop")
    defaults = {"early_stopping_entropy_threshold": 0}

    def resolve(self, values: Mapping[str, Any], request: RequestFacts) -> tuple[float, ...]:
        """Look the think-start token up where it is mixed in at all."""
        if request.think_end_length != 1:
            raise ValueError(
                f"think_end_str must be one token under the policy {self.name!r}, which mixes its "
                f"embedding in; it is {request.think_end_length} tokens."
            )
        think_start = 0
        if values["swi_alpha"] < 1:
            think_start = request.token_id("swi_think_start_str", values["swi_think_start_str"])
        return (
            float(values["swi_alpha"]),
            float(values["swi_beta"]),
            float(values["swi_window_size"]),
            float(values["swi_max_switch_count"]),
            float(think_start),
            float(request.max_new_tokens or _DEFAULT_LENGTH),
        )

    def columns(self, max_topk: int, values: Mapping[str, Any]) -> int:
        """The mixture, and a token that marks a switch."""
        return max_topk + 1

    def choose(self, step: PolicyStep) -> Choice:
        """Decide the mode, then the input."""
        one = torch.ones_like(step.entropy)
        count = step.ids.shape[-1]
        p, ids, _, entropy = top_candidates(step.logits, one, count)
        state, parameters = step.state, step.parameters
        first = state["begun"] == 0
        reference = torch.where(first, entropy, state["reference"].float())
        was_explicit, stay = state["explicit"] > 0, state["stay"] + ~first
        to_explicit = ~first & ~was_explicit & (entropy < reference)
        to_latent = ~first & was_explicit & (entropy > reference) & (stay >= parameters["window"])
        switched = to_explicit | to_latent
        explicit = (was_explicit & ~to_latent) | to_explicit
        switches = state["switches"] + to_explicit
        limit = parameters["max_switches"]

        # alpha and beta are as of this step; 1 leaves the mixture as it is
        progress = step.step / parameters["length"]
        alpha, beta = parameters["alpha"], parameters["beta"]
        share = torch.where(to_latent, alpha + (1 - alpha) * progress, 1.0)
        share = torch.where(to_explicit, beta + (1 - beta) * progress, share)
        share = share.clamp_max(1.0).float()[:, None]
        marker = torch.where(to_explicit, step.think_end, parameters["think_start"].long())

        stop = state["stop"] > 0
        token = torch.where(stop & step.think_end_allowed, step.think_end, step.token)
        mixture = heaviest_with(p, ids, token, step.max_topk)
        drawn = one_hot(ids, token)
        weights = torch.where((explicit & ~to_explicit)[:, None], drawn, share * mixture)
        marked = one_hot(ids, marker)
        weights = weights + (1 - share) * marked
        beside = (1 - share) * (1 - marked.sum(dim=-1, keepdim=True))
        return Choice(
            token,
            torch.cat([ids, marker[:, None]], dim=-1),
            torch.cat([weights, beside], dim=-1),
            state={
                "begun": torch.ones_like(stay),
                "explicit": explicit,
                "stay": torch.where(switched, 0.0, stay),
                "reference": torch.where(switched, entropy, reference),
                "switches": switches,
                "stop": stop | (to_explicit & (limit > 0) & (switches >= limit)),
            },
        )
