"""Output streamer: reports of soft requests travel with their tokens."""

from collections.abc import Callable
from typing import Any

from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.metrics import metrics_for
from soft_sglang.patches.scheduler.request import trace_of
from soft_sglang.trace import RequestTrace


@patch(
    "managers.scheduler_components.output_streamer.SchedulerOutputStreamer.__post_init__",
    When.AFTER,
    why="Additional output fields are off by default.",
    how="Switches them on; a batch without soft requests adds nothing.",
    upstream="Meant for subclasses; there is no way to name one.",
    fingerprint="a91c72011b315925",
)
def switch_on(_result: None, self: Any) -> None:
    """Let the streamer ask for additional fields."""
    type(self).has_additional_customized_info = True


@patch(
    "managers.scheduler_components.output_streamer."
    "SchedulerOutputStreamer.build_additional_customized_info",
    When.AROUND,
    why="The client learns of the concepts and of how thinking ended.",
    how="Adds each soft request's report; None for the others.",
    upstream="As for __post_init__.",
    fingerprint="6331a6c81d092642",
)
def add_reports(
    original: Callable[..., dict[str, list[Any]]], self: Any, reqs: list[Any]
) -> dict[str, list[Any]]:
    """Add the reports of a batch."""
    fields = original(self, reqs)
    traces = [trace_of(req) for req in reqs]
    if all(trace is None for trace in traces):
        return fields
    reports = [
        None if t is None else final_report(req, t) if req.finished() else t.report(None)
        for req, t in zip(reqs, traces, strict=True)
    ]
    return {**fields, REQUEST_KEY: reports}


def final_report(req: Any, trace: RequestTrace, end: str | None = None) -> dict[str, Any]:
    """The last report of a soft request that has ended; counts it.

    Args:
        req: the scheduler's request.
        trace: its trace.
        end: why it ended; default: its finish reason says.
    """
    report = trace.report(_end_of(req) if end is None else end)
    assert report is not None
    metrics = metrics_for(req)
    if metrics is not None:
        metrics.request_ended(report["end"], report["steps"])
    return report


def _end_of(req: Any) -> str:
    """Why a finished request ended, in the words of the answer's ``end``."""
    from sglang.srt.managers import schedule_batch

    reason = req.finished_reason
    if isinstance(reason, schedule_batch.FINISH_ABORT):
        return "abort"
    if isinstance(reason, schedule_batch.FINISH_LENGTH):
        return "length"
    if isinstance(reason, schedule_batch.FINISH_MATCHED_TOKEN):
        stop_ids = req.sampling_params.stop_token_ids or ()
        return "stop" if reason.matched in stop_ids else "eos"
    return "stop"
