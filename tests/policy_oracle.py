"""Thinking policies as a plain loop over a Hugging Face model: the oracle of their tests.

Written from the papers. One request at a time, probabilities in float64, every filter renormalised
for real, embeddings looked up and summed by hand. Only the noise of a draw is the package's own: a
trajectory could not be compared otherwise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from oracle import Trajectory

from soft_sglang.kernels.noise import sampling_gumbel

THINK_START, THINK_END = 2, 3


class Sampling(NamedTuple):
    """How tokens are drawn; a temperature of 0 is greedy."""

    temperature: float = 1.0
    top_k: int = 0
    """0: off."""
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def normal(self) -> "Sampling":
        """The same, with a greedy one written as SGLang does."""
        return self if self.temperature > 0 else Sampling(top_k=1)


PLAIN, GREEDY = Sampling(), Sampling(temperature=0.0)


@dataclass(frozen=True)
class GuidedRequest:
    """One request that follows a policy."""

    policy: str
    prompt: list[int]
    sampling: Sampling = PLAIN
    steps: int = 24
    seed: int = 0
    max_topk: int = 10
    entropy_threshold: float | None = None
    length_threshold: int = 256
    think_end: int = THINK_END
    end: tuple[int, ...] = ()
    """Think-end of several tokens; empty: :attr:`think_end`."""
    cold_stop: tuple[int, ...] = ()
    """What is emitted where thinking is made to end; empty: the think-end."""
    first_token: bool = False
    """The first token of the think-end ends thinking."""
    budget: int | None = None
    """Thinking steps before it is made to end."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The policy's own; those that are not given have their defaults."""
    answer: Sampling = GREEDY

    @property
    def marker(self) -> list[int]:
        """What ends thinking."""
        return list((self.end or (self.think_end,))[: 1 if self.first_token else None])

    @property
    def forced(self) -> list[int]:
        """What is emitted where thinking is made to end."""
        return list(self.cold_stop or self.end or (self.think_end,))

    def sampling_params(self) -> dict[str, object]:
        """The same request for the engine."""
        soft: dict[str, object] = {
            "policy": self.policy,
            "max_topk": self.max_topk,
            "early_stopping_length_threshold": self.length_threshold,
            "think_end_str": words(self.end or (self.think_end,)),
            "return_concepts": True,
            "return_entropies": True,
            **self.parameters,
            **{f"after_thinking_{name}": v for name, v in _engine(self.answer).items()},
        }
        if self.cold_stop:
            soft["cold_stop_str"] = words(self.cold_stop)
        if self.first_token:
            soft["think_end_first_token"] = True
        if self.budget is not None:
            soft["max_thinking_steps"] = self.budget
        if self.entropy_threshold is not None:
            soft["early_stopping_entropy_threshold"] = self.entropy_threshold
        return {
            **_engine(self.sampling),
            "max_new_tokens": self.steps,
            "ignore_eos": True,
            "sampling_seed": self.seed,
            "soft_thinking": soft,
        }


def _engine(sampling: Sampling) -> dict[str, float]:
    return {**sampling._asdict(), "top_k": sampling.top_k or -1}


def words(tokens: Sequence[int]) -> str:
    """Tokens of the tiny models, as text."""
    named = {THINK_START: "<think>", THINK_END: "</think>"}
    return " ".join(named.get(token, f"w{token}") for token in tokens)


def run(model: torch.nn.Module, request: GuidedRequest) -> Trajectory:
    """Think by the policy, then answer: greedily, unless the policy goes on.

    ``concepts`` has an entry per thinking step, the emitted token first: empty where the hidden
    state was fed.
    """
    embedding = model.get_input_embeddings()
    thinker = Thinker(request)
    cache, inputs = None, embedding(torch.tensor([request.prompt]))
    for _ in range(request.steps):
        with torch.no_grad():
            out = model(
                inputs_embeds=inputs,
                past_key_values=cache,
                use_cache=True,
                output_hidden_states=True,
            )
            cache = out.past_key_values
            mixture = thinker.step(out.logits[0, -1].double())
            if mixture is None:
                inputs = out.hidden_states[-1][:, -1:]
                continue
            vectors = embedding(torch.tensor(list(mixture)))
            weights = torch.tensor(list(mixture.values()), dtype=torch.float64)
            inputs = (vectors.double() * weights[:, None]).sum(0).to(vectors.dtype)[None, None]
    return thinker.trajectory()


Mixture = dict[int, float]
"""What is fed: weights by token."""


@dataclass
class At:
    """What a policy sees of one step."""

    request: GuidedRequest
    step: int
    logits: torch.Tensor
    """``[V]`` float64."""
    p: torch.Tensor
    """``[V]``, after temperature and filters, each renormalised."""
    entropy: float
    """Of the whole distribution after temperature."""
    drawn: int
    memory: dict[str, Any]
    """Of the request, for the policy."""
    near: list[float]
    """How near every decision was."""

    def parameter(self, name: str, default: float) -> float:
        """One of the policy's own."""
        value: float = self.request.parameters.get(name, default)
        return value


class Thinker:
    """The loop around a policy: sampling, and the end of thinking."""

    def __init__(self, request: GuidedRequest) -> None:
        self.request = request
        self.ids: list[int] = []
        self.entropies: list[float] = []
        self.concepts: list[list[tuple[int, float]]] = []
        self.thought = Thought(request)
        self._near: list[float] = []
        self._memory: dict[str, Any] = {}

    @property
    def end(self) -> str:
        """How thinking ended; ``length``: not yet."""
        return self.thought.end

    @property
    def margin(self) -> float:
        """How near a decision ever was."""
        return min(self._near, default=math.inf)

    def trajectory(self) -> Trajectory:
        """All of it."""
        return Trajectory(self.ids, self.concepts, self.entropies, self.end, self.margin)

    def step(self, logits: torch.Tensor) -> Mixture | None:
        """From logits ``[V]`` in float64 to the next input; None: the hidden state."""
        request = self.request
        thinking = self.end == "length"
        if not thinking and request.policy != "mixture_of_inputs":
            token = int(logits.argmax())
            self._near.append(_gap(logits))
            self.ids.append(token)
            return {token: 1.0}
        sampling = (request.sampling if thinking else request.answer).normal
        whole = torch.softmax(logits / sampling.temperature, -1)
        at = At(
            request=request,
            step=len(self.ids),
            logits=logits,
            p=filtered(whole, sampling, self._near),
            entropy=float(torch.special.entr(whole).sum()),
            drawn=draw(whole, sampling, request.seed, len(self.ids), self._near),
            memory=self._memory,
            near=self._near,
        )
        token, mixture = POLICIES[request.policy](at)
        alone = request.marker == [token]
        if thinking:
            self._near.append(abs(at.entropy - self.thought.threshold))
            token, alone = self.thought.step(token, at.entropy, logits)
        if alone:
            mixture = {token: 1.0}
        self.ids.append(token)
        if thinking:
            self.entropies.append(at.entropy)
            self.concepts.append(_emitted_first(token, mixture))
        return mixture


class Thought:
    """How long a request thinks, in plain lists of tokens."""

    def __init__(self, request: GuidedRequest) -> None:
        self.end = "length"
        self.threshold = request.entropy_threshold
        if self.threshold is None:
            self.threshold = 0.01 if request.policy == "discrete" else 0.0
        self.tokens: list[int] = []
        """All that were emitted."""
        self.to_force: list[int] = []
        """Those that come next, whatever is proposed."""
        self._request = request
        self._run = 0
        self._cause = ""

    def step(self, token: int, entropy: float, logits: torch.Tensor) -> tuple[int, bool]:
        """What is emitted where ``token`` is proposed, and whether it is fed alone."""
        request, marker = self._request, self._request.marker
        over_budget = request.budget is not None and len(self.tokens) >= request.budget
        if self.to_force and not _forbids(logits, self.to_force):
            return self._forced()
        self.to_force = []
        self._run = self._run + 1 if entropy < self.threshold else 0
        so_far = [*self.tokens, token]
        if so_far[-len(marker) :] == marker:
            self.end = "think_end"
            return self._emitted(token), True
        stopped = self._run >= request.length_threshold
        if not (stopped or over_budget) or _forbids(logits, request.forced):
            return self._emitted(token), False
        self._cause = "cold_stop" if stopped else "budget"
        for begun in range(len(marker) - 1, 0, -1):
            if so_far[-begun:] == marker[:begun]:
                self.to_force = marker[begun:]
                return self._emitted(token), True
        self.to_force = request.forced
        return self._forced()

    def _forced(self) -> tuple[int, bool]:
        token = self.to_force.pop(0)
        if not self.to_force:
            self.end = self._cause
        return self._emitted(token), True

    def _emitted(self, token: int) -> int:
        self.tokens.append(token)
        return token


def _forbids(logits: torch.Tensor, tokens: list[int]) -> bool:
    return any(logits[token] == -math.inf for token in tokens)


def _emitted_first(token: int, mixture: Mixture | None) -> list[tuple[int, float]]:
    if mixture is None:
        return []
    order = sorted(mixture, key=lambda i: (i != token, -abs(mixture[i])))
    return [(i, mixture[i]) for i in order if mixture[i] != 0]


def _gap(values: torch.Tensor) -> float:
    top = values.topk(2).values
    return float(top[0] - top[1])


# Sampling.


def filtered(whole: torch.Tensor, sampling: Sampling, near: list[float]) -> torch.Tensor:
    """Top-k, top-p and min-p of ``[V]``, renormalised after each."""
    p = _top_k(whole, sampling.top_k, near)
    p = p / p.sum()
    p = _top_p(p, p, sampling.top_p, near)
    p = p / p.sum()
    p = _min_p(p, sampling.min_p, near)
    return p / p.sum()


def stock_filtered(whole: torch.Tensor, sampling: Sampling, near: list[float]) -> torch.Tensor:
    """As SGLang's PyTorch sampler: top-p is a share of the whole mass, even under top-k."""
    p = _top_k(whole, sampling.top_k, near)
    p = _top_p(p, whole, sampling.top_p, near)
    return _min_p(p, sampling.min_p, near)


def draw(whole: torch.Tensor, sampling: Sampling, seed: int, step: int, near: list[float]) -> int:
    """A token drawn as by SGLang's sampler, with the noise of a seed and a step."""
    noise = sampling_gumbel(
        torch.tensor([seed]), torch.tensor([step]), torch.arange(len(whole))[None]
    )
    scores = stock_filtered(whole, sampling, near).log() + noise[0].double()
    near.append(_gap(scores))
    return int(scores.argmax())


def _top_k(p: torch.Tensor, top_k: int, near: list[float]) -> torch.Tensor:
    if not 0 < top_k < len(p):
        return p
    values, ids = p.sort(descending=True, stable=True)
    near.append(float(1 - values[top_k] / values[top_k - 1]))
    return torch.zeros_like(p).scatter(0, ids[:top_k], values[:top_k])


def _top_p(p: torch.Tensor, of: torch.Tensor, top_p: float, near: list[float]) -> torch.Tensor:
    """``p`` where the mass of ``of`` before a token is below ``top_p``."""
    if top_p >= 1:
        return p
    values, ids = of.sort(descending=True, stable=True)
    before = values.cumsum(0) - values
    near.append(float((before - top_p).abs().min()))
    keeps = torch.zeros_like(p, dtype=torch.bool).scatter(0, ids, before < top_p)
    return torch.where(keeps, p, 0.0)


def _min_p(p: torch.Tensor, min_p: float, near: list[float]) -> torch.Tensor:
    relative = p / p.max()
    if min_p > 0:
        near.append(float((relative - min_p).abs().min()))
    return torch.where(relative >= min_p, p, 0.0)


# The policies: the emitted token, and what is fed; None is the hidden state.


def heaviest(p: torch.Tensor, count: int, near: list[float]) -> Mixture:
    """The ``count`` heaviest tokens, renormalised."""
    values, ids = p.sort(descending=True, stable=True)
    if count < len(p) and values[count - 1] > 0:
        near.append(float(1 - values[count] / values[count - 1]))
    kept = [(int(i), float(v)) for i, v in zip(ids[:count], values[:count], strict=True) if v > 0]
    total = sum(v for _, v in kept)
    return {i: v / total for i, v in kept}


def heaviest_with(p: torch.Tensor, token: int, count: int, near: list[float]) -> Mixture:
    """The same, of which one is ``token``: the lightest gives way to it."""
    kept = heaviest(p, count, near)
    if token in kept:
        return kept
    others = heaviest(p, count - 1, near) if count > 1 else {}
    weights = {i: float(p[i]) for i in (*others, token)}
    total = sum(weights.values())
    return {i: w / total for i, w in weights.items()} if total > 0 else {token: 1.0}


def _discrete(at: At) -> tuple[int, Mixture | None]:
    """Chain of thought."""
    return at.drawn, {at.drawn: 1.0}


def _average_embedding(at: At) -> tuple[int, Mixture | None]:
    """arXiv 2505.15778, section 4.4."""
    at.near.append(_gap(at.p))
    kept = heaviest(at.p, at.request.max_topk, at.near)
    return next(iter(kept)), dict.fromkeys(kept, 1 / len(kept))


def _coconut_tf(at: At) -> tuple[int, Mixture | None]:
    """arXiv 2505.15778, section 4.4."""
    at.near.append(_gap(at.p))
    return int(at.p.argmax()), None


def _mixture_of_inputs(at: At) -> tuple[int, Mixture | None]:
    """arXiv 2505.14827, equation 5: the posterior mean of a Dirichlet with one observation."""
    beta, y = at.parameter("moi_beta", 1.0), at.drawn
    uncertainty = at.entropy / math.log(len(at.p))
    prior = heaviest_with(at.p, y, at.request.max_topk, at.near)
    mixture = {i: uncertainty * w / (beta + 1) for i, w in prior.items()}
    mixture[y] += (beta + 1 - uncertainty) / (beta + 1)
    return y, mixture


def _selar(at: At) -> tuple[int, Mixture | None]:
    """arXiv 2604.08299: embeddings ``e + c h (e - E[t_1])`` where the entropy ``h`` is high."""
    topk = int(at.parameter("selar_topk", 3))
    q = heaviest(at.p, topk, at.near)
    h = -sum(w * math.log(w) for w in q.values()) / math.log(topk)
    threshold = at.parameter("selar_entropy_threshold", 0.5)
    at.near.append(abs(h - threshold))
    if h < threshold:
        return at.drawn, {at.drawn: 1.0}
    at.near.append(_gap(at.p))
    push = at.parameter("selar_contrastive_weight", 1.0) * h
    first = next(iter(q))
    mixture = {i: w + push * w for i, w in q.items()}
    mixture[first] -= push
    return at.drawn, mixture


def _swi_reasoning(at: At) -> tuple[int, Mixture | None]:
    """arXiv 2510.05069; the trend of the entropy at temperature 1."""
    p = torch.softmax(at.logits, -1)
    entropy = float(torch.special.entr(p).sum())
    memory, switch = at.memory, ""
    if not memory:
        memory.update(mode="latent", begun=at.step, reference=entropy, switches=0, stop=False)
    else:
        at.near.append(abs(entropy - memory["reference"]))
        lasted = at.step - memory["begun"]
        if memory["mode"] == "latent" and entropy < memory["reference"]:
            switch = "explicit"
        elif (
            memory["mode"] == "explicit"
            and entropy > memory["reference"]
            and lasted >= at.parameter("swi_window_size", 512)
        ):
            switch = "latent"
    token = at.request.think_end if memory["stop"] else at.drawn
    if switch:
        memory.update(mode=switch, begun=at.step, reference=entropy)
    if switch == "explicit":
        memory["switches"] += 1
        memory["stop"] = memory["switches"] == at.parameter("swi_max_switch_count", -1)

    mixture = heaviest_with(p, token, at.request.max_topk, at.near)
    done = at.step / at.request.steps
    if switch == "explicit":
        beta = at.parameter("swi_beta", 0.7)
        return token, _with_marker(mixture, beta + (1 - beta) * done, at.request.think_end)
    if switch == "latent":
        alpha = at.parameter("swi_alpha", 1.0)
        return token, _with_marker(mixture, alpha + (1 - alpha) * done, THINK_START)
    return token, mixture if memory["mode"] == "latent" else {token: 1.0}


def _with_marker(mixture: Mixture, share: float, marker: int) -> Mixture:
    mixed = {i: share * w for i, w in mixture.items()}
    mixed[marker] = mixed.get(marker, 0.0) + 1 - share
    return mixed


POLICIES: dict[str, Callable[[At], tuple[int, Mixture | None]]] = {
    "discrete": _discrete,
    "average_embedding": _average_embedding,
    "coconut_tf": _coconut_tf,
    "mixture_of_inputs": _mixture_of_inputs,
    "selar": _selar,
    "swi_reasoning": _swi_reasoning,
}
