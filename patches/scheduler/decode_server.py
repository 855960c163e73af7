"""The decode server of a pair: takes the first step of a request over, and goes on from there."""

from http import HTTPStatus
from typing import Any

import numpy as np

from soft_sglang.handoff import Handoff, HandoffError
from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.handoff import handoff_rows
from soft_sglang.patches.scheduler.request import reporter_of, trace_of
from soft_sglang.trace import RequestTrace, Step

_ARRIVED = "soft_thinking_arrived"
"""Attribute of a request whose row of the concept table is not started yet."""


@patch(
    "disaggregation.decode.DecodeTransferQueue._commit_transfer_to_req",
    When.AFTER,
    why="A request's trace begins with the step that another server took.",
    how="Commits that step, with that server's seed; ends the request where they disagree.",
    upstream="As for the rows.",
)
def take_over(_result: None, self: Any, decode_req: Any) -> None:
    """Commit the first step of a request that has arrived."""
    from sglang.srt.disaggregation.utils import _is_fake_transfer, prepare_abort

    req = decode_req.req
    reporter, trace = reporter_of(req), trace_of(req)
    if req.finished() or decode_req.is_rebootstrap:
        return
    if _is_fake_transfer(req):  # a health check, or a benchmark: nothing was prefilled
        if trace is not None:
            _commit(trace, req.output_ids[-1], Handoff(trace.params.seed, _bare(req)))
        return
    index, room = decode_req.metadata_buffer_index, req.bootstrap_room or 0
    try:
        params = None if reporter is None else reporter.params
        handoff = handoff_rows(self.metadata_buffers).read(index, room, params)
        if handoff is not None and trace is not None:
            _commit(trace, req.output_ids[-1], handoff)
    except HandoffError as error:
        prepare_abort(req, str(error), status_code=HTTPStatus.BAD_REQUEST)


def _commit(trace: RequestTrace, token: int, handoff: Handoff) -> None:
    if trace.is_recording and handoff.step is None:
        raise HandoffError(f"the prefill server sent no step of {REQUEST_KEY}.")
    trace.take_seed(handoff.seed)
    if handoff.step is not None:
        trace.commit(token, *handoff.step)


def _bare(req: Any) -> Step:
    """A step that chose the request's token and mixed nothing."""
    token = req.output_ids[-1]
    return Step(np.array([token]), np.ones(1, np.float32), 0.0, token, True)


@patch(
    "disaggregation.decode.DecodePreallocQueue._create_receiver_and_enqueue",
    When.AFTER,
    why="After a pause with retraction the prefill server is to compute the output anew, from ids.",
    how="Ends a soft request instead: its concepts are not there.",
    upstream="Not applicable.",
)
def refuse_recomputation(_result: Any, self: Any, req: Any, is_rebootstrap: bool = False) -> None:
    """End a soft request whose output would be computed anew."""
    from sglang.srt.disaggregation.utils import prepare_abort

    if is_rebootstrap and trace_of(req) is not None:
        prepare_abort(
            req,
            f"{REQUEST_KEY}: the prefill server cannot compute a thought anew, as the decode "
            'server asks for after a pause with "mode": "retract"; use "in_place".',
            status_code=HTTPStatus.SERVICE_UNAVAILABLE,
        )


@patch(
    "disaggregation.decode_schedule_batch_mixin."
    "ScheduleBatchDisaggregationDecodeMixin.prepare_for_prebuilt",
    When.AFTER,
    why="No prefill runs here that would start a request's row of the concept table.",
    how="Marks the requests; their first decode step starts the rows.",
    upstream="Not applicable.",
)
def mark_arrivals(_result: None, self: Any) -> None:
    """Mark the requests of a batch that was prefilled elsewhere, or is resumed."""
    for req in self.reqs:
        setattr(req, _ARRIVED, True)


def has_arrived(req: Any) -> bool:
    """Whether a request's row is to be started now; says so once."""
    return vars(req).pop(_ARRIVED, False)
