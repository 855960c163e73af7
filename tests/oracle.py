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
    end: tuple[int, ...] = ()
    """Think-end of several tokens; empty: :attr:`think_end`."""
    cold_stop: tuple[int, ...] = ()
    """What is emitted where thinking is made to end; empty: the think-end."""
    first_token: bool = False
    """The first token of the think-end ends thinking."""
    budget: int | None = None
    start: tuple[int, ...] = ()
    """Marker that begins a thought again; empty: none does."""
    closed: bool = False
    """The prompt's thought is over."""
    gumbel: object = None
    """``(step, ids) -> noise``."""
    gumbel_temperature: float = 0.5

    def sampling_params(self, **more: object) -> dict[str, object]:
        """The same request for the engine."""
        soft: dict[str, object] = {
            "max_topk": self.max_topk,
            "early_stopping_entropy_threshold": self.entropy_threshold,
            "early_stopping_length_threshold": self.length_threshold,
            "think_end_str": spelled(self.end or (self.think_end,)),
            "after_thinking_temperature": 0,
            "return_concepts": True,
        }
        if self.cold_stop:
            soft["cold_stop_str"] = spelled(self.cold_stop)
        if self.first_token:
            soft["think_end_first_token"] = True
        if self.budget is not None:
            soft["max_thinking_steps"] = self.budget
        if self.start:
            soft |= {"rethink": True, "think_start_str": spelled(self.start)}
        if self.closed:
            soft["start"] = "answer"
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


def spelled(ids: tuple[int, ...]) -> str:
    """Tokens of the tiny models, as text."""
    return " ".join({1: "<eos>", 2: "<think>", 3: "</think>"}.get(i, f"w{i}") for i in ids)


class Trajectory(NamedTuple):
    """What the oracle saw."""

    ids: list[int]
    concepts: list[list[tuple[int, float]]]
    """One per thinking step."""
    entropies: list[float]
    end: str
    margin: float
    """How near a decision ever was: between the two heaviest tokens, or at a filter's cut."""
    longest_run: int = 0
    positions: tuple[int, ...] = ()
    """Of the thinking steps among the ids."""


@dataclass(frozen=True)
class Update:
    """Other weights, given to a model while a request is held."""

    oracle: "Oracle"
    """Of the other weights."""
    after: int
    """Number of tokens that the old weights made."""
    recompute: bool
    """Whether all that came before is computed again, concepts included; False: its key-value pairs
    stay those of the old weights."""


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
    def run(self, request: Request, update: Update | None = None) -> Trajectory:
        """Soft thinking, then a greedy answer; ``update``: comes in the middle."""
        model = self.model
        fed = [[(token, 1.0)] for token in request.prompt]
        computed, cache, margin, thinker = 0, None, float("inf"), Thinker(request)
        ids: list[int] = []
        concepts: list[list[tuple[int, float]]] = []
        entropies: list[float] = []
        positions: list[int] = []
        for step in range(request.steps):
            if update is not None and step == update.after:
                model = update.oracle.model
                computed, cache = (0, None) if update.recompute else (computed, cache)
            embedding = model.get_input_embeddings()
            inputs = torch.cat([_mixed(embedding, concept) for concept in fed[computed:]], dim=1)
            out = model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
            computed, cache = len(fed), out.past_key_values
            logits = out.logits[0, -1].double()
            if not thinker.thinking:
                top = logits.topk(2).values
                margin = min(margin, float(top[0] - top[1]))
                ids.append(int(logits.argmax()))
                thinker.answer(ids[-1])
                fed.append([(ids[-1], 1.0)])
                continue
            p = torch.softmax(logits / request.temperature, -1)
            entropy = float(torch.special.entr(p).sum())
            concept, near = _concept(p, request, step)
            margin = min(margin, near)
            token, alone = thinker.think(concept[0][0], entropy)
            if alone:
                concept = [(token, 1.0)]
            positions.append(step)
            ids.append(token)
            concepts.append(concept)
            entropies.append(entropy)
            fed.append(concept)
        return Trajectory(
            ids, concepts, entropies, thinker.end, margin, thinker.longest_run, tuple(positions)
        )


class Thinker:
    """When a thought ends and begins, in plain lists."""

    def __init__(self, request: Request) -> None:
        self.thinking = not request.closed
        self.end = "closed" if request.closed else "length"
        self.longest_run = 0
        self._request = request
        self._marker = list(request.end or (request.think_end,))
        self._run = self._steps = 0
        self._emitted: list[int] = []
        """Since the thought, or the answer, began."""
        self._to_come: list[int] = []
        self._cause = ""

    def think(self, proposal: int, entropy: float) -> tuple[int, bool]:
        """The token of a thinking step, and whether it is fed alone."""
        request, used_up = self._request, self._budget_is_used_up()
        self._steps += 1
        if self._to_come:
            return self._forced()
        self._run = self._run + 1 if entropy < request.entropy_threshold else 0
        self.longest_run = max(self.longest_run, self._run)
        self._emitted.append(proposal)
        wanted = self._marker[:1] if request.first_token else self._marker
        if self._emitted[-len(wanted) :] == wanted:
            self._over("think_end")
            return proposal, True
        cold = self._run >= request.length_threshold
        if not (cold or used_up):
            return proposal, False
        self._cause = "cold_stop" if cold else "budget"
        self._to_come = list(request.cold_stop or self._marker)
        for count in range(1, len(wanted)):
            if self._emitted[-count:] == wanted[:count]:
                self._to_come = [proposal, *wanted[count:]]
        return self._forced()

    def answer(self, token: int) -> None:
        """Take note of a token of the answer."""
        self._emitted.append(token)
        start = list(self._request.start)
        if start and self._emitted[-len(start) :] == start:
            self.thinking, self.end, self._run, self._emitted = True, "length", 0, []

    def _budget_is_used_up(self) -> bool:
        budget = self._request.budget
        return budget is not None and self._steps >= budget

    def _forced(self) -> tuple[int, bool]:
        token = self._to_come.pop(0)
        if not self._to_come:
            self._over(self._cause)
        return token, True

    def _over(self, end: str) -> None:
        self.thinking, self.end, self._emitted = False, end, []


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
