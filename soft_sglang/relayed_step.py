"""A step's result on its way to a process that did not take the step.

Where the sampler and the input embedding are in different processes, what the one has computed is
packed into a few tensors, each of which is a message of its own, and written to the other's table.
No host synchronisation.
"""

from collections.abc import Mapping, Sequence

import torch

from soft_sglang.concept_sampler import BatchPlan
from soft_sglang.concept_table import ConceptTable
from soft_sglang.guided_step import GuidedResult
from soft_sglang.kernels.thinking_step import StepResult

_INTEGERS, _REALS = "integers", "reals"
_STATE, _HIDDEN = "state.{}", "hidden.{}"
"""Of the rows of one policy, by its place in the plan."""


def pack(output: StepResult, guided: Sequence[GuidedResult]) -> dict[str, torch.Tensor]:
    """The tensors to send, contiguous and without booleans, which not every transport takes.

    Args:
        output: of a batch, ``S`` rows, as :meth:`ConceptStep.written` gives it.
        guided: of the plan's policies, in its order.

    Returns:
        ``integers`` ``[S, 3 + K]`` int64 and ``reals`` ``[S, 1 + K]`` float32; for the policy at
        place i ``state.i`` ``[G, 1 + MAX_STATE]`` float64, and ``hidden.i`` ``[G, D]`` if it feeds
        hidden states.
    """
    columns = [output.token, output.proposal, output.end_allowed.long()]
    tensors = {
        _INTEGERS: torch.cat([torch.stack(columns, dim=-1), output.ids], dim=-1),
        _REALS: torch.cat([output.entropy[:, None], output.weights], dim=-1),
    }
    for place, result in enumerate(guided):
        fed_hidden = result.fed_hidden.to(result.state.dtype)
        tensors[_STATE.format(place)] = torch.cat([fed_hidden[:, None], result.state], dim=-1)
        if result.hidden is not None:
            tensors[_HIDDEN.format(place)] = result.hidden.contiguous()
    return tensors


def unpack(tensors: Mapping[str, torch.Tensor]) -> tuple[StepResult, tuple[GuidedResult, ...]]:
    """What was packed; views of the tensors."""
    integers, reals = tensors[_INTEGERS], tensors[_REALS]
    token, proposal, allowed = integers[:, :3].unbind(-1)
    output = StepResult(token, integers[:, 3:], reals[:, 1:], reals[:, 0], proposal, allowed > 0)
    guided: list[GuidedResult] = []
    while (state := tensors.get(_STATE.format(len(guided)))) is not None:
        hidden = tensors.get(_HIDDEN.format(len(guided)))
        guided.append(GuidedResult(state[:, 1:], state[:, 0] > 0, hidden))
    return output, tuple(guided)


def feed(
    table: ConceptTable,
    plan: BatchPlan,
    slots: torch.Tensor,
    output: StepResult,
    guided: Sequence[GuidedResult],
) -> None:
    """Write what the rows of a batch are fed next; all that an embedding reads of a table.

    Args:
        table: of the process that embeds, written in place.
        plan: of the batch.
        slots: ``[B]`` integer, of the batch.
        output, guided: as unpacked.
    """
    rows = slots if plan.index is None else slots.index_select(0, plan.index)
    width = output.ids.shape[1]
    table.rows.ids[rows, :width] = output.ids
    table.rows.weights[rows, :width] = output.weights
    for group, result in zip(plan.guided, guided, strict=True):
        rows = slots.index_select(0, group.index)
        table.guided.fed_hidden[rows] = result.fed_hidden
        if result.hidden is not None:
            table.hidden_rows(result.hidden)[rows] = result.hidden
