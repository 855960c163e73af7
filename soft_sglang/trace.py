"""The host's mirror of one soft request: the committed trace, the resume, and the answer."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from soft_sglang.concept import Concept
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


class Step(NamedTuple):
    """What a step left for the host, without the emitted token."""

    ids: np.ndarray
    """``[K]`` int64, the concept."""
    weights: np.ndarray
    """``[K]`` float32."""
    entropy: float
    """Nats."""
    proposal: int
    """The heaviest token before Cold Stop."""
    end_allowed: bool
    """False where a grammar forbade a token that was still to be forced."""
    memory: PolicyMemory | None = None
    """Of the request's policy; None under soft thinking."""


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
        phase = Phase.ANSWERING if params.closed else Phase.THINKING
        end = "closed" if params.closed else None
        self.state = ThinkingState(params.rules, phase=phase, end=end)
        self.concepts: list[Concept] = []
        """Of every output token, up to the last one for which :attr:`is_recording` held."""
        self.answer_start = 0
        """Number of output tokens up to the end of the last thought."""
        policy = policy_named(params.policy)
        self._mixes_answer = policy is not None and policy.mixes_answer
        self._policy_state: Sequence[float] = ()
        self._entropy_sum = 0.0
        self._entropies: list[float] = []
        self._positions: list[int] = []
        """Output positions of the thinking steps."""
        self._reported = 0
        self.first_step: Step | None = None
        """Of a request that another server decodes: the step that its prefill ended with."""

    @property
    def is_recording(self) -> bool:
        """Whether the step to come is one of the policy's, or may begin another thought."""
        return self.is_thinking or self._mixes_answer or bool(self.params.think_start_ids)

    @property
    def is_thinking(self) -> bool:
        """Whether the step to come is one of a thought."""
        return self.state.phase is Phase.THINKING

    def commit(
        self,
        token: int,
        ids: np.ndarray,
        weights: np.ndarray,
        entropy: float,
        proposal: int,
        end_allowed: bool,
        memory: PolicyMemory | None = None,
    ) -> None:
        """Record the step of a token that the scheduler committed.

        Args:
            token: the committed id.
            ids, weights: ``[K]``, the concept.
            entropy: nats.
            proposal: the heaviest token before Cold Stop.
            end_allowed: False where a grammar forbade a token that was still to be forced.
            memory: of the request's policy; None under soft thinking.
        """
        if not self.is_recording:
            return
        if self.is_thinking or self._mixes_answer:
            hidden = None
            if memory is not None:
                self._policy_state, hidden = memory
            used = 1 + int(np.count_nonzero(weights[1:]))
            self.concepts.append(Concept(ids[:used].copy(), weights[:used].copy(), hidden))
        else:
            self.concepts.append(Concept(np.array([token]), np.ones(1, dtype=np.float32)))
        if not self.is_thinking:
            if self.state.answer(token):
                self._policy_state = ()
            return
        expected = self.state.advance(proposal, entropy, end_allowed)
        self.answer_start = len(self.concepts)
        self._positions.append(len(self.concepts) - 1)
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

    def take_seed(self, seed: int) -> None:
        """Go on with the seed with which another server began."""
        self.params = replace(self.params, seed=seed)

    def begin_again(self) -> None:
        """Forget every step: the request is prefilled anew, from its prompt alone."""
        new = RequestTrace(self.params, self.prompt_len, self.answer, self.top_k)
        vars(self).update(vars(new))

    def row_start(self, slot: int, emitted: int, decoding: bool = False) -> RowStart:
        """The table row of a request that has emitted so many output tokens.

        Args:
            slot: of the request.
            emitted: 0 unless the request is resumed, or was prefilled elsewhere.
            decoding: a decode step comes next, and reads the input that follows the last token;
                before a prefill there is no such input.
        """
        last = self.concepts[-1] if decoding and 0 < emitted == len(self.concepts) else None
        return RowStart(
            slot=slot,
            params=self.params,
            answer=self.answer,
            state=self.state,
            step=emitted,
            policy_state=self._policy_state,
            concept=None if last is None or last.is_token else last,
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
            end: why the request ended, None while it runs; replaced by how its last thought ended,
                if it did before.

        Returns:
            The new concepts, if asked for, and the summary at the end; None: nothing.
        """
        report: dict[str, Any] = {}
        if end is not None:
            steps = self.state.steps
            report["steps"] = steps
            report["end"] = end if self.is_thinking else self.state.end
            report["mean_entropy"] = self._entropy_sum / steps if steps else 0.0
            report["longest_run"] = self.state.longest_run
        new = slice(self._reported, self.state.steps)
        per_step = self.params.return_concepts or self.params.return_entropies
        if self.params.return_concepts:
            concepts = [self.concepts[position] for position in self._positions[new]]
            report["concepts"] = [concept.pairs() for concept in concepts]
        if self.params.return_entropies:
            report["entropies"] = self._entropies[new]
        if per_step and self.params.think_start_ids:
            report["positions"] = self._positions[new]
        self._reported = self.state.steps
        return report or None


class ClosedThought:
    """In the place of a trace where a request begins with its answer and never thinks."""

    def __init__(self, params: SoftThinkingParams) -> None:
        self.params = params

    def report(self, end: str | None) -> dict[str, Any] | None:
        """As that of a trace: nothing was thought."""
        if end is None:
            return None
        report = {"steps": 0, "end": "closed", "mean_entropy": 0.0, "longest_run": 0}
        if self.params.return_concepts:
            report["concepts"] = []
        if self.params.return_entropies:
            report["entropies"] = []
        return report
