"""Metrics collector: the metrics of soft thinking beside SGLang's, with the same labels."""

from typing import Any

from soft_sglang.metrics import ThinkingMetrics
from soft_sglang.patches.record import When, patch

_active: ThinkingMetrics | None = None
"""Of this scheduler process; Prometheus' registry is one per process too."""


def active_metrics() -> ThinkingMetrics | None:
    """The metrics of this scheduler process, None without ``--enable-metrics``."""
    return _active


def metrics_for(req: Any) -> ThinkingMetrics | None:
    """The metrics that count a request's steps, None for what no client asked for.

    That is a health check, or the request for no token that prefills the prompt of n samples.
    """
    if _active is None:  # asked for every row of every step: nothing before this
        return None
    from sglang.srt.managers.utils import is_health_check_generate_req

    prefill_of_samples = req.sampling_params.max_new_tokens == 0
    return None if prefill_of_samples or is_health_check_generate_req(req) else _active


def request_metrics_for(req: Any) -> ThinkingMetrics | None:
    """Those that count a request as a whole, where it ends.

    Of a pair of servers that is the one that decodes; the steps are counted by whom they are taken.
    """
    metrics = metrics_for(req)
    if metrics is None:
        return None
    from sglang.srt.runtime_context import get_disagg

    return None if get_disagg().disaggregation_mode == "prefill" else metrics


@patch(
    "observability.metrics_collector.SchedulerMetricsCollector.init_new",
    When.AFTER,
    why="Operators want to see soft thinking where they see everything else.",
    how=(
        "Creates the metrics with the collector's labels, in the processes that SGLang counts in; "
        "of a pipeline's stages, all of which see every step, in the first."
    ),
    upstream="Not applicable.",
)
def create_metrics(context: Any, _cls: type, *, server_args: Any, **_kwargs: Any) -> None:
    """Create the metrics of this process."""
    global _active
    if not context.current_scheduler_metrics_enabled:
        return
    labels = context.collector.labels
    if labels["pp_rank"] == 0 or server_args.enable_metrics_for_all_schedulers:
        _active = ThinkingMetrics(labels)
