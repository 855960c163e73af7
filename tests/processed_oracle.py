"""The oracle with its logits changed before every step, as penalties, biases and masks do.

A loop over a Hugging Face model's ``inputs_embeds`` with the concept step in float64. Like
``oracle.py`` it shares no code with the package.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import float64_oracle
import pytest
import torch
from oracle import Oracle, Request
from tolerances import TRACE_WEIGHT

Process = Callable[[torch.Tensor, list[int]], torch.Tensor]
"""``(logits, ids so far) -> logits``, ``[V]`` float64 each; the argument is not changed."""

MARGIN = 1e-6
"""Of every decision, as in ``test_architectures.py``."""


class ProcessedRun(NamedTuple):
    """What the oracle saw."""

    ids: list[int]
    concepts: list[list[tuple[int, float]]]
    """One per thinking step."""
    end: str
    logprobs: list[torch.Tensor]
    """Per output token, ``[V]`` float64: of every token, at the temperature of the phase."""
    margin: float
    """The least difference of probability that a decision depended on."""

    def check(self, output: dict[str, Any], tokens: int | None = None) -> None:
        """Assert that an engine's output is this run, or its first ``tokens`` tokens.

        How thinking ended is compared if it did so within them.
        """
        assert self.margin > MARGIN, "ambiguous data"
        answer = output["meta_info"]["soft_thinking"]
        assert output["output_ids"] == self.ids[:tokens]
        concepts = self.concepts[:tokens]
        assert answer["steps"] == len(answer["concepts"]) == len(concepts)
        if len(self.concepts) < len(self.ids) and len(concepts) == len(self.concepts):
            assert answer["end"] == self.end
        for got, want in zip(answer["concepts"], concepts, strict=True):
            weights = dict.fromkeys([*dict(got), *dict(want)], 0.0)
            assert weights | dict(got) == pytest.approx(weights | dict(want), **TRACE_WEIGHT)


class ProcessedOracle(Oracle):
    """Steps a model by hand and lets a function change the logits."""

    @torch.no_grad()
    def think(self, request: Request, process: Process | None = None) -> ProcessedRun:
        """Soft thinking without top-k, top-p, min-p and noise, then a greedy answer."""
        embedding = self.model.get_input_embeddings()
        inputs, cache = embedding(torch.tensor([request.prompt])), None
        row = float64_oracle.Row(temperature=request.temperature, max_topk=request.max_topk)
        ids: list[int] = []
        concepts: list[list[tuple[int, float]]] = []
        logprobs: list[torch.Tensor] = []
        thinking, run, end, margin = True, 0, "length", 1.0
        for _ in range(request.steps):
            out = self.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[0, -1].double()
            if process is not None:
                logits = process(logits, ids)
            logprobs.append(torch.log_softmax(logits / (row.temperature if thinking else 1), -1))
            margin = min(margin, _gap(logprobs[-1], 1))
            fed = [(int(logits.argmax()), 1.0)]
            if thinking:
                margin = min(margin, _gap(logprobs[-1], request.max_topk))
                tokens, weights, entropy = float64_oracle.concept(logits.numpy(), row)
                run = run + 1 if entropy < request.entropy_threshold else 0
                natural = tokens[0] == request.think_end
                allowed = bool(logits[request.think_end] > -torch.inf)
                if natural or (run >= request.length_threshold and allowed):
                    thinking, end = False, "think_end" if natural else "cold_stop"
                    tokens, weights = [request.think_end], [1.0]
                fed = list(zip(tokens, weights, strict=True))
                concepts.append(fed)
            ids.append(fed[0][0])
            vectors = embedding(torch.tensor([token for token, _ in fed]))
            weighted = vectors.double() * torch.tensor([[w] for _, w in fed], dtype=torch.float64)
            inputs = weighted.sum(0).to(vectors.dtype)[None, None]
        return ProcessedRun(ids, concepts, end, logprobs, margin)


def _gap(logprobs: torch.Tensor, rank: int) -> float:
    """Between the last probability that is taken and the first that is not; 1 if that is 0."""
    p = logprobs.exp().sort(descending=True).values
    return float(p[rank - 1] - p[rank]) if p[rank] > TRACE_WEIGHT["abs"] else 1.0
