"""Soft thinking as a plain loop over a Hugging Face model: the oracle of the engine tests.

Independent of the package: probabilities in float64, every filter renormalised for real, one
request at a time, embeddings looked up and summed by hand.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM


@dataclass(frozen=True)
class Request:
    """One soft request; the answer is greedy."""

    prompt: list[int]
    steps: int = 64
    temperature: float = 1.0
    top_k: int = 0
    """0: off."""
    top_p: float = 1.0
    min_p: float = 0.0
    max_topk: int = 10
    entropy_threshold: float = 0.0
    length_threshold: int = 256
    think_end: int = 3
    gumbel: object = None
    """``(step, ids) -> noise``."""
    gumbel_temperature: float = 0.5

    def sampling_params(self, **more: object) -> dict[str, object]:
        """The same request for the engine."""
        soft: dict[str, object] = {
            "max_topk": self.max_topk,
            "early_stopping_entropy_threshold": self.entropy_threshold,
            "early_stopping_length_threshold": self.length_threshold,
            "think_end_str": "</think>" if self.think_end == 3 else f"w{self.think_end}",
            "after_thinking_temperature": 0,
            "return_concepts": True,
        }
        if self.gumbel is not None:
            soft |= {"noise": "gumbel", "gumbel_softmax_temperature": self.gumbel_temperature}
        return {
            "temperature": self.temperature,
            "top_k": self.top_k or -1,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "max_new_tokens": self.steps,
            "ignore_eos": True,
            "soft_thinking": soft,
            **more,
        }


class Trajectory(NamedTuple):
    """What the oracle saw."""

    ids: list[int]
    concepts: list[list[tuple[int, float]]]
    """One per thinking step."""
    entropies: list[float]
    end: str
    margin: float
    """How near a decision ever was: between the two heaviest tokens, or at a filter's cut."""


@dataclass
class Oracle:
    """A Hugging Face model, stepped by hand."""

    path: str
    dtype: torch.dtype = torch.float32
    config: dict[str, object] = field(default_factory=dict)
    """Changes to the model's own."""
    model: torch.nn.Module = field(init=False)

    def __post_init__(self) -> None:
        model = AutoModelForCausalLM.from_pretrained(self.path, dtype=self.dtype, **self.config)
        self.model = model.eval()

    @property
    def has_tied_head(self) -> bool:
        """Whether the head's weights are those of the input embedding."""
        return self.model.get_output_embeddings().weight is self.model.get_input_embeddings().weight

    @torch.no_grad()
    def greedy(self, prompt: list[int], steps: int) -> list[int]:
        """Ordinary greedy decoding, without regard to EOS."""
        cache, ids, inputs = None, [], {"input_ids": torch.tensor([prompt])}
        for _ in range(steps):
            out = self.model(**inputs, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            ids.append(int(out.logits[0, -1].argmax()))
            inputs = {"input_ids": torch.tensor([[ids[-1]]])}
        return ids

    @torch.no_grad()
    def follow(self, prompt: list[int], concepts: list[list[tuple[int, float]]]) -> torch.Tensor:
        """The logits of every step of somebody else's trajectory, ``[steps, V]`` in float64."""
        embedding = self.model.get_input_embeddings()
        inputs = [embedding(torch.tensor([prompt]))]
        inputs += [_mixed(embedding, concept) for concept in concepts[:-1]]
        out = self.model(inputs_embeds=torch.cat(inputs, dim=1))
        return out.logits[0, len(prompt) - 1 :].double()

    @torch.no_grad()
    def run(self, request: Request) -> Trajectory:
        """Soft thinking, then a greedy answer."""
        embedding = self.model.get_input_embeddings()
        inputs = embedding(torch.tensor([request.prompt]))
        cache, thinking, run, end, margin = None, True, 0, "length", float("inf")
        ids: list[int] = []
        concepts: list[list[tuple[int, float]]] = []
        entropies: list[float] = []
        for step in range(request.steps):
            out = self.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits = out.logits[0, -1].double()
            if not thinking:
                top = logits.topk(2).values
                margin = min(margin, float(top[0] - top[1]))
                ids.append(int(logits.argmax()))
                inputs = embedding(torch.tensor([[ids[-1]]]))
                continue
            p = torch.softmax(logits / request.temperature, -1)
            entropy = float(torch.special.entr(p).sum())
            concept, near = _concept(p, request, step)
            margin = min(margin, near)
            token = concept[0][0]
            run = run + 1 if entropy < request.entropy_threshold else 0
            forced = run >= request.length_threshold and token != request.think_end
            if forced or token == request.think_end:
                thinking, end = False, "cold_stop" if forced else "think_end"
                token, concept = request.think_end, [(request.think_end, 1.0)]
            ids.append(token)
            concepts.append(concept)
            entropies.append(entropy)
            inputs = _mixed(embedding, concept)
        return Trajectory(ids, concepts, entropies, end, margin)


def _mixed(embedding: torch.nn.Module, concept: list[tuple[int, float]]) -> torch.Tensor:
    """The weighted sum of a concept's embeddings, ``[1, 1, D]``, summed in float64."""
    vectors = embedding(torch.tensor([i for i, _ in concept]))
    weights = torch.tensor([w for _, w in concept], dtype=torch.float64)
    return (vectors.double() * weights[:, None]).sum(0).to(vectors.dtype)[None, None]


def _concept(p: torch.Tensor, request: Request, step: int) -> tuple[list[tuple[int, float]], float]:
    """The concept, and how near its nearest decision was."""
    order = torch.argsort(p, descending=True, stable=True)
    near = []
    if request.top_k:
        near.append(p[order[request.top_k - 1]] - p[order[request.top_k]])
        order = order[: request.top_k]
    kept = p[order] / p[order].sum()
    before = torch.cumsum(kept, 0) - kept
    if request.top_p < 1:
        near.append((before - request.top_p).abs().min())
    order, kept = order[before < request.top_p], kept[before < request.top_p]
    kept = kept / kept.sum()
    relative = kept / kept[0]
    if request.min_p > 0:
        near.append((relative - request.min_p).abs().min())
    order, kept = order[relative >= request.min_p], kept[relative >= request.min_p]
    if len(kept) > request.max_topk:
        near.append(kept[request.max_topk - 1] - kept[request.max_topk])
    order, kept = order[: request.max_topk], kept[: request.max_topk]
    kept = kept / kept.sum()
    if request.gumbel is not None:
        noise = request.gumbel(step, order)  # type: ignore[operator]
        kept = torch.softmax((kept.log() + noise) / request.gumbel_temperature, 0)
        kept, again = kept.sort(descending=True)
        order = order[again]
    if len(kept) > 1:
        near.append(kept[0] - kept[1])
    concept = [(int(i), float(w)) for i, w in zip(order, kept, strict=True)]
    return concept, min(map(float, near), default=1.0)
