"""Prometheus metrics of soft requests, beside SGLang's own; and the dashboard that shows them."""

import json
import re
from pathlib import Path

import pytest
from asking import COLD, TRACED, answer_of, chat, complete
from metric_samples import scrape, total

DASHBOARD = Path(__file__).parents[2] / "docker" / "grafana" / "soft_thinking.json"
_NAME = re.compile(r"(?:soft_)?sglang:\w+")


def test_a_soft_request_is_counted(client, http):
    before = scrape(http)
    answers = [
        answer_of(chat(client, {**TRACED, "early_stopping_length_threshold": 10_000}).choices[0]),
        answer_of(complete(client, COLD).choices[0]),
        answer_of(complete(client, TRACED, max_tokens=3).choices[0]),
    ]
    discrete = complete(client, False, max_tokens=5)
    after = scrape(http)

    def change(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    assert [answer["end"] for answer in answers] == ["think_end", "cold_stop", "length"]
    assert answer_of(discrete.choices[0]) is None
    steps = sum(answer["steps"] for answer in answers)
    assert change("soft_sglang:requests_total") == 3
    assert change("soft_sglang:thinking_steps_total") == steps
    assert change("soft_sglang:cold_stops_total") == 1
    for end, count in {"think_end": 1, "cold_stop": 1, "length": 1, "abort": 0}.items():
        assert change("soft_sglang:ends_total", end=end) == count
    assert change("soft_sglang:entropy_nats_count") == steps
    assert change("soft_sglang:entropy_nats_sum") == pytest.approx(
        sum(answer["mean_entropy"] * answer["steps"] for answer in answers), rel=1e-4, abs=1e-4
    )
    assert change("soft_sglang:thinking_length_tokens_count") == 3
    assert change("soft_sglang:thinking_length_tokens_sum") == steps


def test_entropies_fall_into_their_buckets(client, http):
    """A flat distribution has the entropy of the vocabulary's size, and the steps say so."""
    before = scrape(http)
    bounds = ("2.0", "5.0", "8.0", "+Inf")
    soft = {"early_stopping_entropy_threshold": 0}
    complete(client, soft, temperature=100.0, max_tokens=20, extra_body={"ignore_eos": True})
    after = scrape(http)
    counts = [
        total(after, "soft_sglang:entropy_nats_bucket", le=bound)
        - total(before, "soft_sglang:entropy_nats_bucket", le=bound)
        for bound in bounds
    ]
    steps = counts[-1]
    assert counts == [0, 0, steps, steps]  # log of 384 tokens is about 5.95
    assert steps >= 1


def test_each_sample_counts_once_and_probes_do_not(http):
    before = scrape(http)
    sampling = {"max_new_tokens": 4, "n": 3, "soft_thinking": True, "ignore_eos": True}
    outputs = http.post("/generate", json={"text": "<think>", "sampling_params": sampling}).json()
    assert http.get("/health_generate").status_code == 200
    after = scrape(http)
    steps = sum(output["meta_info"]["soft_thinking"]["steps"] for output in outputs)
    for name, count in {
        "soft_sglang:requests_total": 3,
        "soft_sglang:ends_total": 3,
        "soft_sglang:thinking_length_tokens_count": 3,
        "soft_sglang:thinking_steps_total": steps,
    }.items():
        assert total(after, name) - total(before, name) == count


def test_labels_are_those_of_sglang(client, http):
    complete(client, TRACED, max_tokens=3)
    samples = scrape(http)

    def labels(name: str) -> set[frozenset]:
        return {own for sample, own in samples if sample == name}

    (own,) = labels("sglang:num_running_reqs")
    assert labels("soft_sglang:requests_total") == {own}
    assert {name for name, _ in own} >= {"model_name", "engine_type", "tp_rank", "pp_rank"}


def test_prometheus_3_keeps_the_names(client, http):
    """Older ones do not ask for names as they are, and get ``_`` for ``:``."""
    complete(client, TRACED, max_tokens=3)
    prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6"
    prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.5"
    kept, changed = (
        http.get("/metrics", headers={"accept": f"{media},*/*;q=0.1"}).text
        for media in (prometheus_3, prometheus_2)
    )
    for name in ("soft_sglang:requests_total", "sglang:num_running_reqs"):
        assert f"\n{name}{{" in kept
        assert f"\n{name.replace(':', '_')}{{" in changed


def test_the_dashboard_shows_what_is_exported(client, http):
    complete(client, COLD)
    samples = scrape(http)
    exported = {name for name, _ in samples}
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    shown = {name for expression in expressions for name in _NAME.findall(expression)}
    assert shown <= exported, "the dashboard shows what is not exported"
    ours = {name for name in exported if name.startswith("soft_sglang:")}
    ours = {name for name in ours if not name.endswith(("_created", "_count", "_sum"))}
    assert ours <= shown, "the dashboard leaves something out"
    labels = {name for sample, own in samples if sample in shown for name, _ in own}
    used = set(re.findall(r"(\w+)=~?\"", " ".join(expressions)))
    assert used <= labels
