"""Sampling parameters of a batch: which filters its rows may need."""

from typing import Any

from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.request import trace_of


@patch(
    "sampling.sampling_batch_info.SamplingBatchInfo.from_schedule_batch",
    When.AFTER,
    why="Soft requests change their sampling parameters on the device when thinking ends.",
    how="Sets the host's flags for both phases.",
    upstream="Not applicable.",
    fingerprint="182967d8945861a1",
)
def cover_answers(info: Any, _cls: type, batch: Any, *args: Any, **kwargs: Any) -> None:
    """Make the filter flags hold for the answers of soft requests too."""
    from sglang.srt.sampling.sampling_params import TOP_K_ALL

    for req in batch.reqs:
        trace = trace_of(req)
        if trace is None or not trace.params.separate_answer:
            continue
        answer = trace.answer
        info.is_all_greedy &= answer.top_k <= 1
        info.is_any_greedy |= answer.top_k <= 1
        info.need_top_p_sampling |= answer.top_p != 1.0
        info.need_top_k_sampling |= answer.top_k != TOP_K_ALL
        info.need_min_p_sampling |= answer.min_p > 0
