"""The host's mirror of one soft request: the committed trace, the resume, and the answer."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from soft_sglang.concept_table import AnswerSampling, RowStart
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.policies.registry import policy_named
from soft_sglang.state_machine import Phase, ThinkingState

logger = logging.getLogger(__name__)


class PolicyMemory(NamedTuple):
    """What the policy of a request left of one step."""

    state: Sequence[float]
    hidden: torch.Tensor | None
    """``[D]``, the next input if it is the hidden state."""


class Concept(NamedTuple):
    """The input that follows one committed step."""

    ids: np.ndarray
    """int64, the emitted token, then the others, heaviest first."""
    weights: np.ndarray
    """float32; but for the first none is 0."""
    hidden: torch.Tensor | None = None
    """``[D]``, fed instead of the mixture."""

    @property
    def is_token(self) -> bool:
        """Whether it is the emitted token alone."""
        return len(self.ids) == 1 and self.hidden is None

    def pairs(self) -> list[list[float]]:
        """``[id, weight]`` of the mixture; empty if a hidden state was fed."""
        if self.hidden is not None:
            return []
        return [[int(i), float(w)] for i, w in zip(self.ids, self.weights, strict=True) if w]


class RequestTrace:
    """Mirror of a soft request on the scheduler.

    Fed with committed steps only: under overlap scheduling the device is one token ahead.
    """

    def __init__(
        self, params: SoftThinkingParams, prompt_len: int, answer: AnswerSampling, top_k: int
    ) -> None:
        self.params = params
        self.prompt_len = prompt_len
        self.answer = answer
        self.top_k = top_k
        """``top_k`` of the thinking phase."""
        self.state = ThinkingState(
            # the device compares in float32
            entropy_threshold=float(np.float32(params.early_stopping_entropy_threshold)),
            length_threshold=params.early_stopping_length_threshold,
            think_end_id=params.think_end_id,
        )
        self.concepts: list[Concept] = []
        """Of every output token so far that the policy made the next input for."""
        policy = policy_named(params.policy)
        self._mixes_answer = policy is not None and policy.mixes_answer
        self._policy_state: Sequence[float] = ()
        self._entropy_sum = 0.0
        self._entropies: list[float] = []
        self._reported = 0

    @property
    def is_recording(self) -> bool:
        """Whether the step to come is one of the policy's."""
        return self.state.phase is Phase.THINKING or self._mixes_answer

    def commit(
        self,
        token: int,
        ids: np.ndarray,
        weights: np.ndarray,
        entropy: float,
        proposal: int,
        think_end_allowed: bool,
        memory: PolicyMemory | None = None,
    ) -> None:
        """Record the step of a token that the scheduler committed.

        Args:
            token: the committed id.
            ids, weights: ``[K]``, the concept.
            entropy: nats.
            proposal: the heaviest token before Cold Stop.
            think_end_allowed: False where a grammar forbade the think-end token.
            memory: of the request's policy; None under soft thinking.
        """
        if not self.is_recording:
            return
        hidden = None
        if memory is not None:
            self._policy_state, hidden = memory
        used = 1 + int(np.count_nonzero(weights[1:]))
        self.concepts.append(Concept(ids[:used].copy(), weights[:used].copy(), hidden))
        if self.state.phase is not Phase.THINKING:
            return
        expected = self.state.advance(proposal, entropy, think_end_allowed)
        if expected != token:
            logger.error(
                "soft thinking: the scheduler expected token %d at step %d, the device chose %d",
                expected,
                self.state.steps,
                token,
            )
        self._entropy_sum += entropy
        if self.params.return_entropies:
            self._entropies.append(entropy)

    def row_start(self, slot: int, emitted: int) -> RowStart:
        """The table row for a prefill, after ``emitted`` output tokens (0 unless resumed)."""
        return RowStart(
            slot=slot,
            params=self.params,
            answer=self.answer,
            phase=self.state.phase,
            run=self.state.run,
            step=emitted,
            policy_state=self._policy_state,
        )

    def concepts_between(self, start: int, end: int) -> list[tuple[int, Concept]]:
        """The inputs at positions ``[start, end)`` of the sequence that are not plain tokens."""
        first = max(start - self.prompt_len, 0)
        last = min(end - self.prompt_len, len(self.concepts))
        return [
            (self.prompt_len + i, self.concepts[i])
            for i in range(first, last)
            if not self.concepts[i].is_token
        ]

    def report(self, end: str | None) -> dict[str, Any] | None:
        """What to tell the client now.

        Args:
            end: why the request ended, None while it runs; replaced by ``think_end`` or
                ``cold_stop`` if thinking ended before.

        Returns:
            The new concepts, if asked for, and the summary at the end; None: nothing.
        """
        report: dict[str, Any] = {}
        if end is not None:
            steps = self.state.steps
            report["steps"] = steps
            report["end"] = self._thinking_end() or end
            report["mean_entropy"] = self._entropy_sum / steps if steps else 0.0
        new = slice(self._reported, self.state.steps)
        if self.params.return_concepts:
            report["concepts"] = [concept.pairs() for concept in self.concepts[new]]
        if self.params.return_entropies:
            report["entropies"] = self._entropies[new]
        self._reported = self.state.steps
        return report or None

    def _thinking_end(self) -> str | None:
        if self.state.phase is not Phase.ANSWERING:
            return None
        return "cold_stop" if self.state.cold_stopped else "think_end"
