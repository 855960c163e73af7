"""What asks the model: an Engine in this process or a server, with one face."""

from collections.abc import Coroutine, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from soft_sglang.eval.errors import EvaluationError

_Result = TypeVar("_Result")


class ClientError(EvaluationError):
    """The model cannot be asked, or refuses; the message says why."""


@dataclass(frozen=True)
class Sampling:
    """What the arms have in common; ``top_k`` -1 is off."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_new_tokens: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


NO_PENALTIES: Mapping[str, float] = {
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""Sent with every request: a server may otherwise take a model's ``generation_config.json``."""


@dataclass(frozen=True)
class Question:
    """One request, before it has the form of a client."""

    message: str
    """Of the user."""
    sampling: Sampling
    soft_thinking: bool | Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class Output:
    """What came back; fields as in :class:`soft_sglang.eval.records.Answer`."""

    request: Mapping[str, Any]
    text: str
    thinking: str | None
    answer: str
    tokens: int
    thinking_tokens: int | None
    finish_reason: str
    soft_thinking: Mapping[str, Any] | None


class Client(Protocol):
    """Asks one model."""

    server: str
    """URL, or ``engine``."""
    model: Mapping[str, Any]
    """As in the record of a run."""
    versions: Mapping[str, str | None]
    """Of what generates: soft_sglang, sglang, torch, transformers."""
    think_end: str
    """What ends thinking."""
    context_length: int | None
    """Most tokens of a request, prompt and output together; None: not known."""

    def require_soft_thinking(self) -> None:
        """Do nothing if the model can think softly.

        Raises:
            ClientError: it cannot.
        """

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine in the loop that requests need."""

    async def ask(self, question: Question) -> Output:
        """Ask once.

        Raises:
            ClientError: the request was refused, or broken off.
        """

    async def forget_prompts(self) -> bool:
        """Empty the prefix cache, so that no arm finds its prompts there; whether that worked."""

    def close(self) -> None:
        """Let go of the model."""


_SUMMARY = ("steps", "end", "mean_entropy", "longest_run", "entropies")


def summary(answer: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a record keeps of an answer's ``soft_thinking``.

    Entropies are float32 and written as the shortest decimals that tell them from their neighbours,
    so that a comparison with a threshold can be repeated.
    """
    if answer is None:
        return None
    kept: dict[str, Any] = {name: answer.get(name) for name in _SUMMARY}
    if kept["entropies"] is not None:
        kept["entropies"] = [float(str(np.float32(entropy))) for entropy in kept["entropies"]]
    return kept
