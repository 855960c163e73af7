"""The thinking state machine: which phase a request is in, and when thinking ends.

This is the scheduler's face of the rule, one object per request. The device's face is
``soft_sglang.kernels.thinking_state.advance``; a property test holds the two equal.
"""

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


@dataclass
class ThinkingState:
    """Phase and low-entropy run of one soft request (arXiv 2505.15778, section 3.3)."""

    entropy_threshold: float
    """Nats; 0 never stops."""
    length_threshold: int
    """Consecutive steps below the threshold that end thinking."""
    think_end_id: int
    phase: Phase = Phase.THINKING
    run: int = 0
    steps: int = 0
    """Emitted tokens of the THINKING phase."""
    cold_stopped: bool = False

    def advance(self, proposal: int, entropy: float, think_end_allowed: bool = True) -> int:
        """Take one step of the THINKING phase and return the emitted token.

        Args:
            proposal: the heaviest token of the concept.
            entropy: of the step, in nats.
            think_end_allowed: False where a grammar forbids the think-end token.
        """
        self.steps += 1
        self.run = self.run + 1 if entropy < self.entropy_threshold else 0
        self.cold_stopped = (
            self.run >= self.length_threshold
            and think_end_allowed
            and proposal != self.think_end_id
        )
        token = self.think_end_id if self.cold_stopped else proposal
        if token == self.think_end_id:
            self.phase = Phase.ANSWERING
        return token
