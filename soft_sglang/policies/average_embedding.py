"""Average embedding: the uniform mean of the heaviest tokens."""

import torch

from soft_sglang.policies.policy import Choice, Policy, PolicyStep


class AverageEmbedding(Policy):
    """Feeds the mean of the ``max_topk`` heaviest tokens' embeddings.

    A baseline of arXiv 2505.15778 (section 4.4, "Average Embedding"). The paper does not say
    whether its sampling filters apply; here the mean is over the tokens that they keep, and the
    heaviest one is emitted. Without Cold Stop unless the request sets its threshold.
    """

    name = "average_embedding"
    defaults = {"early_stopping_entropy_threshold": 0}

    def choose(self, step: PolicyStep) -> Choice:
        """Weigh the heaviest tokens equally."""
        kept = (step.heaviest() > 0).float()
        return Choice(step.ids[:, 0], step.ids, kept / torch.sum(kept, dim=-1, keepdim=True))
