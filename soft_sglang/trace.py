"""The host's mirror of one soft request: the committed trace, the resume, and the answer."""

import logging
from typing import Any, NamedTuple

import numpy as np

from soft_sglang.concept_table import AnswerSampling, RowStart
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.state_machine import Phase, ThinkingState

logger = logging.getLogger(__name__)


class Concept(NamedTuple):
    """The input that follows one committed thinking step."""

    ids: np.ndarray
    """int64, heaviest first."""
    weights: np.ndarray
    """float32, all above 0."""


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
        self._entropy_sum = 0.0
        self._reported = 0

    def commit(
        self,
        token: int,
        ids: np.ndarray,
        weights: np.ndarray,
        entropy: float,
        proposal: int,
        think_end_allowed: bool,
    ) -> None:
        """Record the step of a token that the scheduler committed.

        Args:
            token: the committed id.
            ids, weights: ``[K]``, the concept.
            entropy: nats.
            proposal: the heaviest token before Cold Stop.
            think_end_allowed: False where a grammar forbade the think-end token.
        """
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
        used = int(np.count_nonzero(weights))
        self.concepts.append(Concept(ids[:used].copy(), weights[:used].copy()))
        self._entropy_sum += entropy

    def row_start(self, slot: int, emitted: int) -> RowStart:
        """The table row for a prefill, after ``emitted`` output tokens (0 unless resumed)."""
        return RowStart(
            slot=slot,
            params=self.params,
            answer=self.answer,
            phase=self.state.phase,
            run=self.state.run,
            step=emitted,
        )

    def concepts_between(self, start: int, end: int) -> list[tuple[int, Concept]]:
        """The mixtures among the inputs at positions ``[start, end)`` of the sequence."""
        first = max(start - self.prompt_len, 0)
        last = min(end - self.prompt_len, len(self.concepts))
        return [
            (self.prompt_len + i, self.concepts[i])
            for i in range(first, last)
            if len(self.concepts[i].ids) > 1
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
        if self.params.return_concepts:
            report["concepts"] = [
                [[int(i), float(w)] for i, w in zip(c.ids, c.weights, strict=True)]
                for c in self.concepts[self._reported :]
            ]
            self._reported = len(self.concepts)
        return report or None

    def _thinking_end(self) -> str | None:
        if self.state.phase is not Phase.ANSWERING:
            return None
        return "cold_stop" if self.state.cold_stopped else "think_end"
