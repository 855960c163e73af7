"""Forward batch: starts table rows and attaches what the batch's soft requests need."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from soft_sglang.concept import Concept, Mixtures, mixtures_of
from soft_sglang.concept_sampler import BatchPlan, plan_batch
from soft_sglang.concept_table import AnswerSampling, ConceptTable, RowStart
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.decode_server import has_arrived
from soft_sglang.patches.scheduler.request import effective_top_k, trace_of
from soft_sglang.patches.versions import extend_end
from soft_sglang.row_parameters import RowParameters
from soft_sglang.trace import RequestTrace

_PLAN = "soft_thinking_plan"
"""Attribute of a ScheduleBatch: its request list and the plan made for it."""


@dataclass(frozen=True)
class ConceptInputs:
    """Input positions of a forward pass that may be fed a mixture."""

    index: torch.Tensor | None
    """``[N]`` int64, positions in the flat input; None: all of them."""
    slots: torch.Tensor
    """``[N]`` integer, the rows that hold the mixtures."""
    mixtures: Mixtures | None = None
    """What the slots point into; None: the concept table."""


@dataclass(frozen=True)
class SoftBatch:
    """Attached to the ForwardBatch of a batch with soft requests."""

    plan: BatchPlan
    inputs: tuple[ConceptInputs, ...]
    captured_here: bool = False
    """Nobody but the plan asked for hidden states."""


def soft_batch_of(forward_batch: Any) -> SoftBatch | None:
    """What is attached to a forward batch, None if no request in it is soft."""
    soft: SoftBatch | None = getattr(forward_batch, "soft_thinking", None)
    return soft


@patch(
    "model_executor.forward_batch_info.ForwardBatch.init_new",
    When.AFTER,
    why=(
        "Rows must be started on the forward stream, after the last write of a slot's former "
        "owner, and a resumed request's concepts must be embedded again."
    ),
    how=(
        "Writes the rows of requests that are prefilled, or were elsewhere and are new to the "
        "batch, and attaches the plan and the concept inputs."
    ),
    upstream="Not applicable.",
)
def attach_soft_batch(
    forward_batch: Any, _cls: type, batch: Any, model_runner: Any, *args: Any, **kwargs: Any
) -> None:
    """Prepare a forward batch for soft thinking."""
    runtime = getattr(model_runner, "soft_thinking", None)
    if runtime is None or not batch.reqs:
        return
    table: ConceptTable = runtime.table
    extend = batch.forward_mode.is_extend(include_draft_extend_v2=False)
    decoding = len(batch.decoding_reqs or ()) if extend else len(batch.reqs)
    prefilled = batch.reqs[: len(batch.reqs) - decoding]
    table.start([_row_start(req) for req in prefilled])

    if not _is_planned(batch):  # whatever was prefilled elsewhere is new to it
        table.start([_arrival(req) for req in batch.reqs if has_arrived(req)])
    plan = plan_of(batch, table.device)
    if plan is None:
        return
    inputs = []
    embeds = runtime.embedding is not None
    if prefilled and embeds:
        resumed = _resumed_inputs(
            prefilled, batch.prefix_lens, batch.extend_lens, table.width, table.device
        )
        inputs += [] if resumed is None else [resumed]
    if decoding and embeds:
        inputs.append(_decode_inputs(forward_batch, len(prefilled)))
    captured_here = plan.feeds_hidden and _capture_hidden(forward_batch)
    forward_batch.soft_thinking = SoftBatch(plan, tuple(inputs), captured_here)


def _capture_hidden(forward_batch: Any) -> bool:
    """Make SGLang keep the last hidden states; whether it would not have.

    A graph that was captured without them does not run such a batch.
    """
    from sglang.srt.model_executor.forward_batch_info import CaptureHiddenMode

    if forward_batch.capture_hidden_mode.need_capture():
        return False
    forward_batch.capture_hidden_mode = CaptureHiddenMode.LAST
    return True


def plan_of(batch: Any, device: torch.device) -> BatchPlan | None:
    """The plan of a batch of the scheduler's, made anew only when its request list is a new one.

    It follows from the requests alone: every stage of a pipeline makes the same.
    """
    if _is_planned(batch):
        plan: BatchPlan | None = getattr(batch, _PLAN)[1]
        return plan
    plan = plan_batch([_parameters(req) for req in batch.reqs], device)
    setattr(batch, _PLAN, (batch.reqs, plan))
    return plan


def _is_planned(batch: Any) -> bool:
    """Whether a batch has a plan for the requests that are in it now."""
    cached = getattr(batch, _PLAN, None)
    return cached is not None and cached[0] is batch.reqs


def traces_in(batch: Any) -> list[RequestTrace]:
    """The traces of a ScheduleBatch's requests that may think."""
    if _is_planned(batch) and getattr(batch, _PLAN)[1] is None:
        return []
    return [trace for trace in map(trace_of, batch.reqs) if trace is not None]


def _parameters(req: Any) -> RowParameters:
    trace = trace_of(req)
    if trace is not None:
        return RowParameters(trace.params, trace.top_k, trace.answer)
    own = req.sampling_params
    top_k = effective_top_k(own.top_k, req.vocab_size)
    return RowParameters(None, top_k, AnswerSampling(own.temperature, own.top_p, top_k, own.min_p))


def _row_start(req: Any) -> RowStart:
    trace, slot = trace_of(req), req.kv.req_pool_idx
    if trace is None or extend_end(req) < len(req.full_untruncated_fill_ids):
        return RowStart(slot, None)  # discrete, or a prefill that goes on
    if not req.output_ids and trace.concepts:
        trace.begin_again()  # a prefill server gave up what it had prefilled
    return trace.row_start(slot, emitted=len(req.output_ids))


def _arrival(req: Any) -> RowStart:
    """The row of a request that was prefilled elsewhere, or is resumed with its KV cache."""
    trace, slot = trace_of(req), req.kv.req_pool_idx
    if trace is None:
        return RowStart(slot, None)
    return trace.row_start(slot, emitted=len(req.output_ids), decoding=True)


def _resumed_inputs(
    reqs: Sequence[Any],
    prefix_lens: Sequence[int],
    extend_lens: Sequence[int],
    width: int,
    device: torch.device,
) -> ConceptInputs | None:
    """The inputs of a prefill that are not tokens: those of requests resumed after a retraction."""
    index: list[int] = []
    concepts: list[Concept] = []
    offset = 0
    for req, start, length in zip(reqs, prefix_lens, extend_lens, strict=False):
        trace = trace_of(req)
        if trace is not None:
            for position, concept in trace.concepts_between(start, start + length):
                index.append(offset + position - start)
                concepts.append(concept)
        offset += length
    if not concepts:
        return None
    positions = torch.tensor(index, dtype=torch.int64).to(device)
    rows = torch.arange(len(concepts), device=device)
    return ConceptInputs(positions, rows, mixtures_of(concepts, width).to(device))


def _decode_inputs(forward_batch: Any, prefilled: int) -> ConceptInputs:
    """The rows of a decode batch, or the decode tail of a mixed one, in the flat input."""
    slots = forward_batch.req_pool_indices
    if not prefilled:
        return ConceptInputs(None, slots)  # the rows of discrete requests hold no mixture
    decoding = slots[prefilled:].clone()  # aligned, as the kernel was compiled for
    first = forward_batch.input_ids.shape[0] - decoding.shape[0]
    last = forward_batch.input_ids.shape[0]
    return ConceptInputs(torch.arange(first, last, device=slots.device), decoding)
