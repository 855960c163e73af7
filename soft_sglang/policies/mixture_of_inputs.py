"""Mixture of Inputs: the sampled token blended with the distribution it came from."""

import math

from soft_sglang.fields import Field, Kind
from soft_sglang.policies.policy import Choice, Policy, PolicyStep, one_hot


class MixtureOfInputs(Policy):
    """Feeds the posterior expectation of the token, at every position.

    arXiv 2505.14827, equation 5: with ``y`` sampled from ``p`` and ``H`` the entropy of the whole
    distribution over ``log V``, a token weighs ``(H p_i + (beta + 1 - H) [i = y]) / (beta + 1)``.
    It goes on in the answer, with the answer's sampling parameters.

    Left open there, or bounded here: the entropy is taken after temperature; ``p`` is the filtered
    distribution, of which the heaviest tokens and ``y``, ``max_topk`` in all, are kept and
    renormalised (the authors' code keeps 20). The think-end token itself is fed alone. Without Cold
    Stop unless the request sets its threshold.
    """

    name = "mixture_of_inputs"
    fields = (Field("moi_beta", Kind.NUMBER, low=0, high=1e6, default=1.0),)
    parameters = ("moi_beta",)
    defaults = {"early_stopping_entropy_threshold": 0}
    mixes_answer = True

    def choose(self, step: PolicyStep) -> Choice:
        """Blend the drawn token with the distribution."""
        beta = step.parameters["moi_beta"].float()[:, None]
        uncertainty = step.entropy[:, None] / math.log(step.logits.shape[-1])
        drawn = one_hot(step.ids, step.token)
        p = step.heaviest_with(step.token)
        weights = (uncertainty * p + (beta + 1 - uncertainty) * drawn) / (beta + 1)
        return Choice(step.token, step.ids, weights)
