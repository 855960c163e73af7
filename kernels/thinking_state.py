"""The thinking state machine, vectorised over rows, without a host synchronisation.

The scheduler's face of the same rule is ``soft_sglang.state_machine.ThinkingState``, which says it
in full; a property test holds the two equal.
"""

from typing import NamedTuple

import torch


class ThoughtState(NamedTuple):
    """What a thought remembers; every field has shape ``[B]``, int64. See ``TableRows``."""

    run: torch.Tensor
    thought: torch.Tensor
    forced: torch.Tensor
    matched: torch.Tensor


class ThoughtRules(NamedTuple):
    """When and how the thoughts of ``B`` rows end."""

    entropy_threshold: torch.Tensor
    """``[B]`` float32, nats; 0 never triggers."""
    length_threshold: torch.Tensor
    """``[B]`` int64, steps."""
    max_thinking_steps: torch.Tensor
    """``[B]`` int64, steps."""
    end_ids: torch.Tensor
    """``[B, E]`` int64, the tokens that end thinking, then ``NO_TOKEN``."""
    end_length: torch.Tensor
    """``[B]`` int64, number of these tokens."""
    forced_ids: torch.Tensor
    """``[B, F]`` int64, the tokens that are emitted to end it, then ``NO_TOKEN``. Where ``F`` is 1,
    ``E`` is 1, and both are the same token."""
    forced_length: torch.Tensor
    """``[B]`` int64, number of these tokens."""


class StateStep(NamedTuple):
    """Result of :func:`advance`; every tensor has shape ``[B]``."""

    token: torch.Tensor
    """int64, the emitted token: the proposal or a forced one."""
    state: ThoughtState
    ended: torch.Tensor
    """bool, thinking ended with this step."""
    alone: torch.Tensor
    """bool, the next input is the token alone: it was forced, or thinking ended."""

    def next_input(
        self, ids: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``ids`` and ``weights`` ``[B, K]``; the token alone where it must be."""
        first = torch.arange(ids.shape[-1], device=ids.device) == 0
        alone = self.alone[:, None]
        token = torch.where(first, self.token[:, None], 0)
        return torch.where(alone, token, ids), torch.where(alone, first.float(), weights)


def advance(
    proposal: torch.Tensor,
    entropy: torch.Tensor,
    state: ThoughtState,
    rules: ThoughtRules,
    allowed: torch.Tensor,
) -> StateStep:
    """One step of rows in the THINKING phase (arXiv 2505.15778, section 3.3, "Cold Stop").

    Args:
        proposal: ``[B]`` int64, the heaviest token of the concept.
        entropy: ``[B]`` float32, nats.
        state: before the step.
        rules: of the rows.
        allowed: ``[B]`` bool, False where a grammar forbids a token that is still to be forced.
    """
    run, thought, forced, matched = state
    new_run = torch.where(entropy < rules.entropy_threshold, run + 1, 0)
    due = (new_run >= rules.length_threshold) | (thought >= rules.max_thinking_steps)
    due = due & allowed
    first = rules.forced_ids[:, 0]
    if rules.forced_ids.shape[1] == 1:  # nothing to remember: a forced end is one step
        ended = due | (proposal == first)
        token = torch.where(ended, first, proposal)
        return StateStep(token, ThoughtState(new_run, thought + 1, forced, matched), ended, ended)

    proposed = matched_bits(matched, proposal, rules.end_ids)
    place = torch.arange(rules.end_ids.shape[1], device=proposal.device)
    # of the matches under way the longest
    length = (((proposed[:, None] >> place) & 1) * (place + 1)).amax(dim=-1)
    going_on = (forced > 0) & allowed
    natural = (length == rules.end_length) & (length > 0) & ~going_on
    begins = due & ~natural & ~going_on
    token = torch.where(
        going_on,
        rules.forced_ids.gather(-1, forced[:, None]).squeeze(-1),
        torch.where(begins & (length == 0), first, proposal),
    )
    # where the proposal is part of the marker, the rest of it follows
    begun = torch.where(length > 0, rules.forced_length - rules.end_length + length, 1)
    new_forced = torch.where(going_on, forced + 1, torch.where(begins, begun, 0))
    ended = natural | ((new_forced > 0) & (new_forced >= rules.forced_length))
    new = ThoughtState(
        run=torch.where(going_on, run, new_run),
        thought=thought + 1,
        forced=torch.where(ended, 0, new_forced),
        matched=torch.where(ended, 0, matched_bits(matched, token, rules.end_ids)),
    )
    return StateStep(token, new, ended, ended | going_on | begins)


def matched_bits(matched: torch.Tensor, token: torch.Tensor, marker: torch.Tensor) -> torch.Tensor:
    """The bits of the matches that a token goes on with, or begins (Shift-And).

    Args:
        matched: ``[B]`` int64, before the token; see ``TableRows``.
        token: ``[B]`` integer.
        marker: ``[B, M]`` int64, filled up with ``NO_TOKEN``.
    """
    place = torch.arange(marker.shape[1], device=marker.device)
    equal = (marker == token[:, None]).long()
    return ((matched << 1) | 1) & (equal << place).sum(dim=-1)


def is_allowed(
    logits: torch.Tensor, forced_ids: torch.Tensor, forced: torch.Tensor
) -> torch.Tensor:
    """``[B]`` bool, False where the logit of a token that is still to be forced is ``-inf``.

    Args:
        logits: ``[B, V]``.
        forced_ids: ``[B, F]`` int64, filled up with ``NO_TOKEN``.
        forced: ``[B]`` int64, how many of them are emitted.
    """
    if forced_ids.shape[1] == 1:
        return logits.gather(-1, forced_ids).squeeze(-1) > -torch.inf
    place = torch.arange(forced_ids.shape[1], device=logits.device)
    to_come = (place >= forced[:, None]) & (forced_ids >= 0)
    forbidden = ~(logits.gather(-1, forced_ids.clamp_min(0)) > -torch.inf)
    return ~(forbidden & to_come).any(dim=-1)
