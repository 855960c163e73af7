"""A thinking policy of one's own: soft thinking with sharpened weights.

    export SOFT_SGLANG_POLICIES=sharpened_thinking PYTHONPATH=examples
    python -m soft_sglang.launch_server

A request asks for it with ``"soft_thinking": {"policy": "sharpened_thinking", "sharpness": 2}``.
"""

from soft_sglang.fields import Field, Kind
from soft_sglang.policies.policy import Choice, Policy, PolicyStep
from soft_sglang.policies.registry import register


class SharpenedThinking(Policy):
    """Feeds the heaviest tokens with their weights to a power, renormalised."""

    name = "sharpened_thinking"
    fields = (Field("sharpness", Kind.NUMBER, low=0, high=100, default=2.0),)
    parameters = ("sharpness",)

    def choose(self, step: PolicyStep) -> Choice:
        """Sharpen the concept of every row; each row has a sharpness of its own."""
        weights = step.heaviest()
        relative = weights / weights[:, :1]  # the heaviest's power must not vanish
        sharp = relative ** step.parameters["sharpness"].float()[:, None]
        sharp = sharp.where(weights > 0, 0.0)  # 0 ** 0 is 1
        return Choice(step.ids[:, 0], step.ids, sharp / sharp.sum(dim=-1, keepdim=True))


register(SharpenedThinking())
