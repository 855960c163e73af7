"""SeLaR: soft only where the model is unsure."""

from collections.abc import Mapping
from typing import Any

import torch

from soft_sglang.fields import Field, Kind
from soft_sglang.policies.policy import Choice, Policy, PolicyStep, one_hot


class SeLaR(Policy):
    """Feeds a mixture at uncertain steps, the sampled token at the others.

    arXiv 2604.08299. ``q`` is the filtered distribution's ``selar_topk`` heaviest tokens,
    renormalised, and ``h`` its entropy over ``log selar_topk``. Where ``h`` is at least
    ``selar_entropy_threshold`` the next input is ``e + c h (e - E[t_1])`` with ``e = sum(q E)``:
    the mixture pushed away from its heaviest token, ``c`` being ``selar_contrastive_weight``.
    That is a mixture again: every other token weighs ``(1 + c h) q_i``, and the heaviest what is
    missing to 1, which can be negative. Defaults as in the authors' experiments.

    Left open there: the emitted token is the sampled one, also where a mixture is fed (as in the
    authors' code). Their code feeds tokens of formulas discretely; a list of those depends on the
    tokenizer and is left out. Without Cold Stop unless the request sets its threshold.
    """

    name = "selar"
    fields = (
        Field("selar_topk", Kind.INTEGER, low=2, high=1023, default=3),
        Field("selar_entropy_threshold", Kind.NUMBER, low=0, high=1, default=0.5),
        Field("selar_contrastive_weight", Kind.NUMBER, low=0, high=1e6, default=1.0),
    )
    parameters = ("selar_topk", "selar_entropy_threshold", "selar_contrastive_weight")
    defaults = {"early_stopping_entropy_threshold": 0}

    def columns(self, max_topk: int, values: Mapping[str, Any]) -> int:
        """The mixture and the emitted token, which need not be in it."""
        return int(values["selar_topk"]) + 1

    def choose(self, step: PolicyStep) -> Choice:
        """Choose between the mixture and the drawn token."""
        topk = step.parameters["selar_topk"]
        q = step.heaviest(topk)
        entropy = torch.special.entr(q).sum(dim=-1) / torch.log(topk.float())
        unsure = entropy >= step.parameters["selar_entropy_threshold"].float()
        push = 1 + step.parameters["selar_contrastive_weight"].float() * entropy
        first = torch.arange(q.shape[-1], device=q.device) == 0
        others = torch.where(first, 0.0, push[:, None] * q)
        mixture = torch.where(first, 1 - others.sum(dim=-1, keepdim=True), others)
        drawn = one_hot(step.ids, step.token)
        return Choice(step.token, step.ids, torch.where(unsure[:, None], mixture, drawn))
