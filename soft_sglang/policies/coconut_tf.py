"""COCONUT, training-free: the last hidden state is the next input."""

from collections.abc import Mapping
from typing import Any

import torch

from soft_sglang.policies.policy import Choice, Policy, PolicyStep, alone


class CoconutTF(Policy):
    """Feeds the last hidden state in place of the output of the embedding layer.

    COCONUT (arXiv 2412.06769) trains a model for that; a baseline of arXiv 2505.15778 (section 4.4,
    "COCONUT-TF") does it without training. Left open there: the state is the one after the final
    norm, which the head reads (as in COCONUT); the heaviest token is emitted, though no token is
    fed, and ends thinking when it is the think-end token. A model that scales embeddings after
    their layer (Granite, Gemma 2) scales the state as well. Without Cold Stop unless the request
    sets its threshold.
    """

    name = "coconut_tf"
    defaults = {"early_stopping_entropy_threshold": 0}
    feeds_hidden = True

    def columns(self, max_topk: int, values: Mapping[str, Any]) -> int:
        """One."""
        return 1

    def choose(self, step: PolicyStep) -> Choice:
        """Feed the hidden state everywhere."""
        token = step.ids[:, 0]
        return Choice(token, *alone(token), hidden=torch.ones_like(token, dtype=torch.bool))
