"""Output streamer: reports of soft requests travel with their tokens."""

from typing import Any

from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.metrics import request_metrics_for
from soft_sglang.patches.scheduler.request import reporter_of
from soft_sglang.patches.unsupported_modes import unsupported_mode
from soft_sglang.trace import ClosedThought, RequestTrace


@patch(
    "managers.scheduler.Scheduler.get_output_streamer_class",
    When.AFTER,
    why="The client learns of the concepts and of how thinking ended.",
    how="Extends the class, as it is meant to be: with a report of each soft request.",
    upstream="A plugin hook for output fields would replace it.",
)
def stream_reports(streamer: Any, self: Any) -> type | None:
    """Extend the scheduler's output streamer."""
    if unsupported_mode(self.server_args) is not None:
        return None  # as it is: the Rust server, for one, refuses additional fields

    class SoftOutputStreamer(streamer):
        __slots__ = ()
        has_additional_customized_info = True

        def build_additional_customized_info(self, reqs: list[Any]) -> dict[str, list[Any]]:
            fields: dict[str, list[Any]] = streamer.build_additional_customized_info(self, reqs)
            return {**fields, **_reports(reqs)}

    return SoftOutputStreamer


def _reports(reqs: list[Any]) -> dict[str, list[Any]]:
    """The reports of a batch's soft requests, None for the others; nothing if there are none."""
    reporters = [reporter_of(req) for req in reqs]
    if all(reporter is None for reporter in reporters):
        return {}
    reports = [
        None if r is None else final_report(req, r) if req.finished() else r.report(None)
        for req, r in zip(reqs, reporters, strict=True)
    ]
    return {REQUEST_KEY: reports}


def final_report(
    req: Any, reporter: RequestTrace | ClosedThought, end: str | None = None
) -> dict[str, Any]:
    """The last report of a soft request that has ended; counts it.

    Args:
        req: the scheduler's request.
        reporter: of it.
        end: why it ended; default: its finish reason says.
    """
    report = reporter.report(_end_of(req) if end is None else end)
    assert report is not None
    metrics = request_metrics_for(req)
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
