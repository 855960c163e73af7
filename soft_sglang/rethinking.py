"""Thinking again: an answer in which the model opens another thought.

``plan_rethinking`` prepares on the host; ``reopen`` runs on the device when a batch's ids are
known, without a host synchronisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from soft_sglang.concept_table import ConceptTable, padded
from soft_sglang.kernels.table_rows import (
    ANSWERING,
    GUIDED,
    MARKER_LIMIT,
    NO_TOKEN,
    STATE,
    THINKING,
    where_rows,
)
from soft_sglang.kernels.thinking_state import matched_bits
from soft_sglang.policies.registry import policy_named
from soft_sglang.row_parameters import RowParameters

_PHASE, _RUN, _MATCHED = map(STATE.index, ("phase", "run", "matched"))


@dataclass(frozen=True)
class RethinkingPlan:
    """The ``N`` rows of a batch whose answer may begin a thought; tensors on the device."""

    index: torch.Tensor
    """``[N]`` int64, positions in the batch."""
    start_ids: torch.Tensor
    """``[N, MARKER_LIMIT]`` int64, the tokens that begin a thought, then ``NO_TOKEN``."""
    last: torch.Tensor
    """``[N]`` int64, place of the last of them."""
    phase: torch.Tensor
    """``[N]`` int64, THINKING or GUIDED: the phase of the row's thoughts."""


def plan_rethinking(rows: Sequence[RowParameters], device: torch.device) -> RethinkingPlan | None:
    """Collect the rows of a batch that may think again; None if there are none."""
    table = [
        [
            position,
            len(row.soft.think_start_ids) - 1,
            THINKING if policy_named(row.soft.policy) is None else GUIDED,
            *padded(row.soft.think_start_ids, MARKER_LIMIT, NO_TOKEN),
        ]
        for position, row in enumerate(rows)
        if row.soft is not None and row.soft.think_start_ids
    ]
    if not table:
        return None
    host = torch.tensor(table, dtype=torch.int64, pin_memory=device.type == "cuda")
    columns = host.to(device, non_blocking=True)
    index, last, phase = columns[:, :3].unbind(-1)
    return RethinkingPlan(index, columns[:, 3:], last, phase)


def answering_rows(plan: RethinkingPlan, table: ConceptTable, slots: torch.Tensor) -> torch.Tensor:
    """``[N]`` bool, rows of the plan that answer; ``slots`` ``[B]`` of the batch."""
    slots = slots[plan.index]
    phase = table.rows.phase[slots]
    return (phase == ANSWERING) | ((phase == GUIDED) & table.guided.answering[slots])


def reopen(
    plan: RethinkingPlan,
    table: ConceptTable,
    slots: torch.Tensor,
    ids: torch.Tensor,
    answering: torch.Tensor,
) -> None:
    """Begin a thought where the answer completes the marker of its start.

    Its policy has forgotten what it remembered of the last one.

    Args:
        plan: of the batch.
        table: written in place.
        slots, ids: ``[B]`` integer, slots and emitted tokens of the batch.
        answering: as :func:`answering_rows` had it before the step.
    """
    slots, ids = slots[plan.index], ids[plan.index]
    state, guided = table.rows.state[slots], table.guided
    matched = matched_bits(state[:, _MATCHED], ids, plan.start_ids)
    opened = answering & ((matched >> plan.last) & 1 > 0)
    new = state.clone()
    new[:, _PHASE] = torch.where(opened, plan.phase, state[:, _PHASE])
    new[:, _RUN] = torch.where(opened, 0, state[:, _RUN])
    new[:, _MATCHED] = torch.where(opened, 0, matched)
    table.rows.state[slots] = where_rows(answering, new, state)
    guided.answering[slots] &= ~opened
    guided.state[slots] = guided.state[slots].masked_fill(opened[:, None], 0.0)
