"""What fields of a request do to its logits, for the oracle."""

from collections.abc import Sequence

import regex
import torch
from processed_oracle import Process
from spelling import TOKENS
from tiny_models import EOS, VOCAB_SIZE


def biased(bias: dict[int, float], banned_until: int = 0, banned: Sequence[int] = ()) -> Process:
    """A logit bias, and tokens that are impossible for a number of steps."""

    def process(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
        logits = logits.clone()
        for token, amount in bias.items():
            logits[token] += amount
        if len(ids) < banned_until:
            logits[list(banned)] = -torch.inf
        return logits

    return process


def penalised(
    prompt: list[int], frequency: float = 0.0, presence: float = 0.0, repetition: float = 1.0
) -> Process:
    """Penalties, as SGLang 0.5.21 counts under overlap scheduling.

    It counts the last token that the scheduler knows, which is the one before the last: first the
    prompt's last token, and never the newest.
    """

    def process(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
        counted = [prompt[-1], *ids[:-1]] if ids else []
        count = torch.bincount(torch.tensor(counted, dtype=torch.int64), minlength=VOCAB_SIZE)
        logits = logits - frequency * count - presence * (count > 0)
        scaled = torch.where(logits < 0, logits * repetition, logits / repetition)
        return torch.where(count > 0, scaled, logits)

    return process


def spelt_by(pattern: str, after: int | None = None) -> Process:
    """A grammar: a token is possible if a text that matches can go on with it.

    Args:
        pattern: a regular expression.
        after: the token that the grammar starts after; None: it starts at once.
    """
    compiled = regex.compile(pattern)

    def possible(text: str, token: int) -> bool:
        if token == EOS:
            return compiled.fullmatch(text) is not None
        return compiled.fullmatch(text + TOKENS[token], partial=True) is not None

    def process(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
        if after is not None:
            if after not in ids:
                return logits
            ids = ids[ids.index(after) + 1 :]
        text = "".join(TOKENS[token] for token in ids)
        mask = torch.tensor([possible(text, token) for token in range(VOCAB_SIZE)])
        return torch.where(mask, logits, -torch.inf)

    return process
