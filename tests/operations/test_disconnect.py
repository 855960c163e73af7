"""A client that disconnects while its request thinks leaves nothing but the prompt in the cache."""

import json
import time

import pytest
from metric_samples import scrape, total

PROMPT = "<|user|>What is 98*89?<|assistant|><think>"
WITHIN = 60
"""Seconds."""


@pytest.fixture
def ids(http):
    """Ids of the prompt, in an empty cache."""
    assert http.post("/flush_cache").status_code == 200
    return _ids(http, PROMPT)


def _ids(http, text: str) -> list[int]:
    return http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()[
        "tokens"
    ]


def _follow_up(http, prompt: list[int]) -> dict:
    sampling = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}
    return http.post("/generate", json={"input_ids": prompt, "sampling_params": sampling}).json()


def test_nobody_finds_what_an_abandoned_request_computed(http, ids):
    sampling = {
        "temperature": 1.0,
        "max_new_tokens": 900,
        "ignore_eos": True,
        "logit_bias": {str(_ids(http, "</think>")[0]): -100.0},  # it thinks on
        "soft_thinking": {"early_stopping_entropy_threshold": 0, "return_concepts": True},
    }
    body = {"input_ids": ids, "sampling_params": sampling, "stream": True}
    mixtures, emitted = 0, []
    before = total(scrape(http), "soft_sglang:ends_total", end="abort")
    with http.stream("POST", "/generate", json=body) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            emitted = chunk["output_ids"]
            mixtures += sum(len(c) > 1 for c in chunk["meta_info"]["soft_thinking"]["concepts"])
            if len(emitted) >= 30:
                break
    assert mixtures > 0

    deadline = time.monotonic() + WITHIN
    while http.get("/v1/loads").json()["loads"][0]["num_running_reqs"]:
        assert time.monotonic() < deadline, "the request goes on without its client"
        time.sleep(0.1)
    assert total(scrape(http), "soft_sglang:ends_total", end="abort") == before + 1
    follow_up = ids + emitted + [7, 8]
    warm = _follow_up(http, follow_up)
    assert warm["meta_info"]["cached_tokens"] == len(ids)
    assert http.post("/flush_cache").status_code == 200
    fresh = _follow_up(http, follow_up)
    assert fresh["meta_info"]["cached_tokens"] == 0
    assert warm["output_ids"] == fresh["output_ids"]
