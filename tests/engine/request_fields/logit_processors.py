"""Custom logit processors of the tests. The scheduler imports this module by its name."""

from typing import Any

import torch
from sglang.srt.sampling.custom_logit_processor import (
    CustomLogitProcessor,
    ThinkingBudgetLogitProcessor,
)

SPOILED = 0
"""Id that becomes certain where a processor is not given its own parameters."""


class PromptBias(CustomLogitProcessor):
    """Makes the prompt's first token likelier by the parameter ``amount``."""

    def __call__(
        self, logits: torch.Tensor, custom_param_list: list[dict[str, Any]] | None = None
    ) -> torch.Tensor:
        for row, params in enumerate(custom_param_list or []):
            if params.keys() != {"amount", "__req__"}:
                logits[row] = -torch.inf
                logits[row, SPOILED] = 0.0
                continue
            logits[row, params["__req__"].origin_input_ids[0]] += params["amount"]
        return logits


class ThinkingBudget(ThinkingBudgetLogitProcessor):
    """SGLang's own processor, with ids of the tests' vocabulary."""

    THINKING_START_TOKEN_ID = 2
    THINKING_END_TOKEN_ID = 3
    NEW_LINE_TOKEN_ID = 14
