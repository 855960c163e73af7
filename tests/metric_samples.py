"""Reading the Prometheus metrics of a server, or of this process' engine."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(http: httpx.Client) -> Samples:
    """Every sample of the server, by name and labels."""
    response = http.get("/metrics")
    response.raise_for_status()
    return _samples(text_string_to_metric_families(response.text))


def scrape_processes(folder: Path) -> Samples:
    """The same of the processes that keep their metrics in a folder."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return _samples(registry.collect())


def _samples(families: Iterable[Metric]) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """Sum of the samples of a name that have these labels."""
    return sum(
        value
        for (sample, own), value in samples.items()
        if sample == name and labels.items() <= dict(own).items()
    )
