"""Prometheus metrics of soft thinking."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ENTROPY_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
"""Nats. The default threshold of Cold Stop, 0.01, is one of them."""
LENGTH_BUCKETS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
"""Tokens."""


class ThinkingMetrics:
    """The metrics of one scheduler process.

    ``prometheus_client`` reads its multi-process folder from the environment when it is imported,
    so it is imported when the first object is made, not before.
    """

    def __init__(self, labels: Mapping[str, Any]) -> None:
        """``labels``: SGLang's own, with their values."""
        from prometheus_client import Counter, Histogram

        names = list(labels)
        self._requests = Counter(
            "soft_sglang:requests_total", "Soft requests that arrived.", names
        ).labels(**labels)
        self._steps = Counter(
            "soft_sglang:thinking_steps_total", "Emitted tokens of the thinking phase.", names
        ).labels(**labels)
        self._cold_stops = Counter(
            "soft_sglang:cold_stops_total", "Thinking phases that Cold Stop ended.", names
        ).labels(**labels)
        self._ends = Counter(
            "soft_sglang:ends_total",
            "Finished soft requests, by the `end` that their answer reports.",
            [*names, "end"],
        )
        self._entropy = Histogram(
            "soft_sglang:entropy_nats",
            "Entropy of each thinking step.",
            names,
            buckets=ENTROPY_BUCKETS,
        ).labels(**labels)
        self._length = Histogram(
            "soft_sglang:thinking_length_tokens",
            "Thinking steps of each finished soft request that took any.",
            names,
            buckets=LENGTH_BUCKETS,
        ).labels(**labels)
        self._labels = dict(labels)
        # parts of a histogram that are not public: if they change, the start fails, not a step
        self._bounds = np.array(self._entropy._upper_bounds)
        self._buckets = self._entropy._buckets
        self._sum = self._entropy._sum

    def request_arrived(self) -> None:
        """Count a soft request."""
        self._requests.inc()

    def steps_committed(self, entropies: Sequence[float], cold_stops: int) -> None:
        """Count the thinking steps of one batch.

        Args:
            entropies: of every step, nats.
            cold_stops: how many of the steps were a Cold Stop.
        """
        if not entropies:
            return
        self._steps.inc(len(entropies))
        if cold_stops:
            self._cold_stops.inc(cold_stops)
        # one addition per bucket: Histogram.observe for every row would cost a large batch
        # milliseconds per step
        buckets = np.searchsorted(self._bounds, entropies)
        counts = np.bincount(np.minimum(buckets, len(self._bounds) - 1))
        for bucket in np.flatnonzero(counts):
            self._buckets[bucket].inc(int(counts[bucket]))
        self._sum.inc(float(sum(entropies)))

    def request_ended(self, end: str, steps: int) -> None:
        """Count a finished soft request.

        Args:
            end: as its answer reports it.
            steps: number of its thinking steps; 0 for a request that never ran.
        """
        self._ends.labels(**self._labels, end=end).inc()
        if steps:
            self._length.observe(steps)
