"""One step of the rows that follow a policy other than soft thinking.

``plan_guided`` prepares on the host; ``guided_step`` runs on the device, without a host
synchronisation, and writes the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from soft_sglang.concept_table import ConceptTable
from soft_sglang.kernels.concept_step import filtered, top_candidates
from soft_sglang.kernels.sampling import Sampling
from soft_sglang.kernels.table_rows import ANSWERING, GUIDED, where_rows
from soft_sglang.kernels.thinking_state import (
    StateStep,
    ThoughtRules,
    ThoughtState,
    advance,
    is_allowed,
)
from soft_sglang.kernels.thinking_step import StepPlan, StepResult, new_columns, thought_rules
from soft_sglang.policies.policy import Choice, Policy, PolicyStep
from soft_sglang.policies.registry import policy_named
from soft_sglang.row_parameters import TOP_K_OFF, RowParameters

_CANDIDATES = 1024
"""Tokens that are drawn from where top-k is off."""


@dataclass(frozen=True)
class GuidedPlan:
    """The rows of a batch that follow one policy."""

    policy: Policy
    positions: tuple[int, ...]
    """In the batch."""
    index: torch.Tensor
    """``[G]`` int64, the same on the device."""
    among: torch.Tensor
    """``[G]`` int64, their places among the rows of the batch's plan."""
    candidates: int


def plan_guided(
    rows: Sequence[RowParameters], positions: Sequence[int], device: torch.device
) -> tuple[GuidedPlan, ...]:
    """Group the guided rows of a batch by policy.

    Args:
        rows: of the batch.
        positions: the rows of the batch's plan, ascending.
        device: the table's.
    """
    groups: dict[str, list[int]] = {}
    for position in positions:
        params = rows[position].soft
        if params is not None and policy_named(params.policy) is not None:
            groups.setdefault(params.policy, []).append(position)
    place = {position: i for i, position in enumerate(positions)}
    plans = []
    for name, group in groups.items():
        policy = policy_named(name)
        assert policy is not None
        indices = torch.tensor(
            [group, [place[position] for position in group]],
            dtype=torch.int64,
            pin_memory=device.type == "cuda",
        ).to(device, non_blocking=True)
        candidates = 1
        for position in group:
            params, top_k, answer = rows[position]
            assert params is not None
            for k in (top_k, answer.top_k) if policy.mixes_answer else (top_k,):
                candidates = max(candidates, k if k < TOP_K_OFF else _CANDIDATES)
            candidates = max(candidates, params.policy_columns, params.max_topk)
        plans.append(GuidedPlan(policy, tuple(group), indices[0], indices[1], candidates))
    return tuple(plans)


class GuidedResult(NamedTuple):
    """What the host keeps of ``G`` rows, to resume them."""

    state: torch.Tensor
    """``[G, MAX_STATE]`` float64, of the policy."""
    fed_hidden: torch.Tensor
    """``[G]`` bool."""
    hidden: torch.Tensor | None
    """``[G, D]``, the last hidden states; None under a policy that never feeds them."""


def guided_step(
    plan: GuidedPlan,
    logits: torch.Tensor,
    sampling: Sampling,
    table: ConceptTable,
    slots: torch.Tensor,
    step_plan: StepPlan,
    hidden: torch.Tensor | None,
) -> tuple[StepResult, GuidedResult]:
    """Advance the rows of one policy that are in the phase GUIDED, and write their table rows.

    Args:
        plan: of the policy.
        logits, sampling, slots: of the batch, as for the thinking step.
        step_plan: of the batch.
        hidden: ``[B, D]`` last hidden states of the batch, for a policy that feeds them.

    Returns:
        Results of the plan's rows. ``token`` is -1 for rows in another phase.
    """
    logits = logits.index_select(0, plan.index).float()
    slots = slots[plan.index]
    rows, guided_rows = table.rows, table.guided
    named = rows.parameters(slots)
    before = rows.state[slots]
    phase, run, step, thought, forced, matched = before.unbind(-1)
    guided = phase == GUIDED
    answering = guided_rows.answering[slots]
    own = sampling.of_rows(plan.index).after_thinking(answering, named)
    temperatures, top_p, top_k, min_p = own

    p, ids, mass, entropy = top_candidates(logits, temperatures.view(-1), plan.candidates)
    # a neighbour may need more candidates than this row draws from
    rank = torch.arange(p.shape[-1], device=p.device)
    p = torch.where(rank < torch.where(top_k < logits.shape[-1], top_k, _CANDIDATES)[:, None], p, 0)
    filters = (mass, top_k, top_p, min_p, logits.shape[-1])
    kept = filtered(p, *filters)
    policy = plan.policy
    rules = thought_rules(rows, slots, named, step_plan)
    allowed = is_allowed(logits, rules.forced_ids, forced)
    choice = policy.choose(
        PolicyStep(
            logits=logits,
            p=kept / kept.sum(dim=-1, keepdim=True),
            drawable=filtered(p, *filters, own.joint(step_plan.joint_filters)),
            ids=ids,
            entropy=entropy,
            seed=named["seed"],
            step=step,
            think_end=rules.end_ids[:, 0],
            think_end_allowed=allowed,
            max_topk=named["max_topk"],
            parameters=dict(
                zip(policy.parameters, guided_rows.parameters[slots].unbind(-1), strict=False)
            ),
            state=dict(zip(policy.state, guided_rows.state[slots].unbind(-1), strict=False)),
        )
    )

    memory = ThoughtState(run, thought, forced, matched)
    end = advance(choice.token, entropy, memory, rules, allowed)
    if policy.mixes_answer:
        end = _only_in_thoughts(end, answering, choice.token, memory, rules)
    width = step_plan.width
    chosen_ids, chosen_weights = end.next_input(*_emitted_first(choice, width))
    new_phase = GUIDED if policy.mixes_answer else torch.where(end.ended, ANSWERING, GUIDED)
    columns = new_columns(torch.zeros_like(phase) + new_phase, step + 1, end.state)
    state = guided_rows.state[slots]
    for column, name in enumerate(policy.state):
        if name in choice.state:
            state[:, column] = choice.state[name]
    fed_hidden = torch.zeros_like(guided)
    if choice.hidden is not None:
        fed_hidden = choice.hidden & ~end.alone

    def write(column: torch.Tensor, value: torch.Tensor) -> None:
        column[slots] = where_rows(guided, value, column[slots])

    rows.state[slots] = where_rows(guided, columns, before)
    write(rows.ids[:, :width], chosen_ids)
    write(rows.weights[:, :width], chosen_weights)
    write(guided_rows.state, state)
    write(guided_rows.fed_hidden, fed_hidden)
    if policy.mixes_answer:
        write(guided_rows.answering, answering | end.ended)
    last_hidden = None
    if policy.feeds_hidden:
        assert hidden is not None, "the batch was run without capturing hidden states"
        last_hidden = hidden.index_select(0, plan.index)
        write(table.hidden_rows(hidden), last_hidden)
    token = torch.where(guided, end.token, -1)
    result = StepResult(token, chosen_ids, chosen_weights, entropy, choice.token, allowed)
    return result, GuidedResult(state, fed_hidden, last_hidden)


def _only_in_thoughts(
    end: StateStep,
    answering: torch.Tensor,
    token: torch.Tensor,
    memory: ThoughtState,
    rules: ThoughtRules,
) -> StateStep:
    """The step with nothing made to end where a row ``[G]`` is answering.

    There a think-end marker of one token is still fed alone.
    """
    is_end = (rules.end_length == 1) & (rules.end_ids[:, 0] == token)
    state = (torch.where(answering, *pair) for pair in zip(memory, end.state, strict=True))
    return StateStep(
        torch.where(answering, token, end.token),
        ThoughtState(*state),
        end.ended & ~answering,
        torch.where(answering, is_end, end.alone),
    )


def _emitted_first(choice: Choice, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and weights ``[G, width]``: the emitted token, then the others, heaviest first."""
    own = choice.ids == choice.token[:, None]
    weight = torch.where(own, choice.weights, 0.0).sum(dim=-1, keepdim=True)
    others = torch.where(own, 0.0, choice.weights)
    order = torch.argsort(others.abs(), dim=-1, descending=True, stable=True)[:, : width - 1]
    others = others.gather(-1, order)
    ids = torch.where(others != 0, choice.ids.gather(-1, order), 0)
    missing = width - 1 - ids.shape[-1]
    if missing > 0:
        ids = torch.nn.functional.pad(ids, (0, missing))
        others = torch.nn.functional.pad(others, (0, missing))
    return (
        torch.cat([choice.token[:, None], ids], dim=-1),
        torch.cat([weight, others], dim=-1),
    )
