"""The thinking state machine, vectorised over rows, without a host synchronisation."""

from typing import NamedTuple

import torch


class StateStep(NamedTuple):
    """Result of :func:`advance`; every field has shape ``[B]``."""

    token: torch.Tensor
    """int64, the emitted token: the proposal or a forced think-end."""
    run: torch.Tensor
    """int64, consecutive low-entropy steps including this one."""
    ended: torch.Tensor
    """bool, thinking ended with this step."""
    forced: torch.Tensor
    """bool, Cold Stop replaced the proposal."""

    def next_input(
        self, ids: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``ids`` and ``weights`` ``[B, K]``; where thinking ended, the think-end token alone."""
        first = torch.arange(ids.shape[-1], device=ids.device) == 0
        ended = self.ended[:, None]
        alone = torch.where(first, self.token[:, None], 0)
        return torch.where(ended, alone, ids), torch.where(ended, first.float(), weights)


def advance(
    proposal: torch.Tensor,
    entropy: torch.Tensor,
    run: torch.Tensor,
    entropy_threshold: torch.Tensor,
    length_threshold: torch.Tensor,
    think_end: torch.Tensor,
    think_end_allowed: torch.Tensor,
) -> StateStep:
    """One step of rows in the THINKING phase (arXiv 2505.15778, section 3.3, "Cold Stop").

    The scheduler's face of the same rule is ``soft_sglang.state_machine.ThinkingState``.

    Args:
        proposal: ``[B]`` int64, the heaviest token of the concept.
        entropy: ``[B]`` float32, nats.
        run: ``[B]`` int64, consecutive low-entropy steps so far.
        entropy_threshold: ``[B]`` float32, nats; 0 never triggers.
        length_threshold: ``[B]`` int64, steps.
        think_end: ``[B]`` int64 token id.
        think_end_allowed: ``[B]`` bool, False where a grammar forbids the think-end token.
    """
    run = torch.where(entropy < entropy_threshold, run + 1, 0)
    forced = (run >= length_threshold) & think_end_allowed & (proposal != think_end)
    token = torch.where(forced, think_end, proposal)
    return StateStep(token=token, run=run, ended=token == think_end, forced=forced)


def is_allowed(logits: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """``[B]`` bool, False where the logit ``[B, V]`` of a token ``[B]`` int64 is ``-inf``."""
    return logits.gather(-1, token[:, None]).squeeze(-1) > -torch.inf
