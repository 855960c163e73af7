"""Chain of thought, one token at a time, under the same Cold Stop as soft thinking."""

from collections.abc import Mapping
from typing import Any

from soft_sglang.policies.policy import Choice, Policy, PolicyStep, alone


class Discrete(Policy):
    """Feeds the sampled token: the baseline that tells what Cold Stop alone does.

    With an entropy threshold of 0 it is chain-of-thought sampling (temperature 0: greedy) whose
    entropies are measured. A discrete request has the same distribution and other random numbers.
    """

    name = "discrete"

    def columns(self, max_topk: int, values: Mapping[str, Any]) -> int:
        """One."""
        return 1

    def choose(self, step: PolicyStep) -> Choice:
        """Draw one token."""
        return Choice(step.token, *alone(step.token))
