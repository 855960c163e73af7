"""The thinking state machine: which phase a request is in, and when thinking begins and ends.

This is the scheduler's face of the rule, one object per request. The device's face is
``soft_sglang.kernels.thinking_state.advance``, and ``soft_sglang.rethinking.reopen`` for the
answer; a property test holds the two equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from soft_sglang.kernels import table_rows


class Phase(IntEnum):
    """Phase of a request."""

    DISCRETE = table_rows.DISCRETE
    """Not a soft request."""
    THINKING = table_rows.THINKING
    """The next input is a concept token."""
    ANSWERING = table_rows.ANSWERING
    """Thinking has ended: ordinary sampling."""


@dataclass(frozen=True)
class ThoughtRules:
    """When and how the thoughts of a request end, and what begins another one.

    A thought ends by itself when the tokens of the marker ``end_ids`` are emitted one after the
    other. It is made to end by Cold Stop, or when the budget is used up: from then on the tokens
    of ``forced_ids`` are emitted one by one, whatever the model proposes. Where the proposal of
    that moment is part of the marker, only the rest of the marker follows. While a grammar forbids
    a token that is still to be forced, nothing is, and a sequence that was begun is given up. It is
    emitted whole, also where its beginning happens to complete a marker that was under way.
    """

    entropy_threshold: float
    """Nats; 0 never stops."""
    length_threshold: int
    """Consecutive steps below the threshold that end thinking."""
    end_ids: tuple[int, ...]
    """The marker that ends a thought."""
    forced_ids: tuple[int, ...]
    """What is emitted to end a thought. Its last tokens are the marker, or go on from it where the
    marker is but the first token of a longer one."""
    max_thinking_steps: int = table_rows.NO_LIMIT
    """Thinking steps of the request, in all its thoughts, before the end is forced."""
    start_ids: tuple[int, ...] = ()
    """The marker that begins a thought again; empty: nothing does."""


@dataclass
class ThinkingState:
    """Phase, low-entropy run and end of one soft request (arXiv 2505.15778, section 3.3)."""

    rules: ThoughtRules
    phase: Phase = Phase.THINKING
    run: int = 0
    steps: int = 0
    """Emitted tokens of thoughts."""
    forced: int = 0
    """Number of forced tokens that are emitted; 0: none is being forced."""
    matched: int = 0
    """Bit i is set if the last i + 1 tokens are the first of the marker looked for: that of the
    end in a thought, that of the start in the answer."""
    end: str | None = None
    """How the last thought ended: ``think_end``, ``cold_stop`` or ``budget``."""
    longest_run: int = 0
    """Of all thoughts."""
    _cause: str = ""
    """Of the tokens that are being forced."""

    def advance(self, proposal: int, entropy: float, allowed: bool = True) -> int:
        """Take one step of the THINKING phase and return the emitted token.

        Args:
            proposal: the heaviest token of the concept.
            entropy: of the step, in nats.
            allowed: False where a grammar forbids a token that is still to be forced.
        """
        rules = self.rules
        used_up = self.steps >= rules.max_thinking_steps
        self.steps += 1
        if self.forced and allowed:
            return self._force(self.forced + 1)
        self.forced = 0
        self.run = self.run + 1 if entropy < rules.entropy_threshold else 0
        self.longest_run = max(self.longest_run, self.run)
        before = self.matched
        self.matched = _matched(before, proposal, rules.end_ids)
        length = self.matched.bit_length()
        if length == len(rules.end_ids):
            self._end_thought("think_end")
            return proposal
        cold = self.run >= rules.length_threshold
        if not (cold or used_up) or not allowed:
            return proposal
        self._cause = "cold_stop" if cold else "budget"
        rest = len(rules.forced_ids) - len(rules.end_ids)
        self.matched = before
        return self._force(rest + length if length else 1)

    def answer(self, token: int) -> bool:
        """Take note of a token of the ANSWERING phase; whether it begins a thought."""
        start_ids = self.rules.start_ids
        self.matched = _matched(self.matched, token, start_ids)
        begins = bool(start_ids) and self.matched.bit_length() == len(start_ids)
        if begins:
            self.phase, self.run, self.matched = Phase.THINKING, 0, 0
        return begins

    def _force(self, count: int) -> int:
        """Emit the ``count``-th of the forced tokens."""
        rules = self.rules
        token = rules.forced_ids[count - 1]
        self.forced, self.matched = count, _matched(self.matched, token, rules.end_ids)
        if count == len(rules.forced_ids):
            self._end_thought(self._cause)
        return token

    def _end_thought(self, end: str) -> None:
        self.phase, self.forced, self.matched, self.end = Phase.ANSWERING, 0, 0, end


def _matched(matched: int, token: int, marker: Sequence[int]) -> int:
    """The bits of the matches that a token goes on with, or begins (Shift-And)."""
    return (matched << 1 | 1) & sum((token == other) << i for i, other in enumerate(marker))
