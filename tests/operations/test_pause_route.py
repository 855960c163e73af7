"""``/pause_generation`` and ``/continue_generation`` of a server, with requests under way."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import pytest
from asking import PROMPT, TRACED, same_trace

STARTED = 5
"""Chunks of every request when the server is paused."""
SAMPLING = {"temperature": 1.0, "max_new_tokens": 120, "ignore_eos": True}
SOFT = {**SAMPLING, "soft_thinking": TRACED}
DISCRETE = {**SAMPLING, "temperature": 0}
REQUESTS = [{"text": PROMPT, "sampling_params": sampling} for sampling in (SOFT, DISCRETE, SOFT)]


@pytest.fixture(scope="module")
def undisturbed(http):
    """The answers to a soft and a discrete request."""
    return [http.post("/generate", json=body).json() for body in REQUESTS[:2]]


def _whole(http, body, begun):
    """The last chunk of a stream, with all concepts."""
    concepts, last, seen = [], {}, 0
    with http.stream("POST", "/generate", json={**body, "stream": True}) as response:
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            last = json.loads(line.removeprefix("data: "))
            concepts += last["meta_info"].get("soft_thinking", {}).get("concepts", ())
            seen += 1
            if seen == STARTED:
                begun.release()
    if "soft_thinking" in last["meta_info"]:
        last["meta_info"]["soft_thinking"]["concepts"] = concepts
    return last


def _paused(http, mode):
    """The answers to requests that were under way when the server was paused."""
    begun = Semaphore(0)
    with ThreadPoolExecutor(len(REQUESTS)) as threads:
        answers = [threads.submit(_whole, http, body, begun) for body in REQUESTS]
        for _ in REQUESTS:
            begun.acquire()
        assert http.post("/pause_generation", json={"mode": mode}).status_code == 200
        assert not any(answer.done() for answer in answers) or mode == "abort"
        assert http.post("/continue_generation", json={}).status_code == 200
        return [answer.result() for answer in answers]


@pytest.mark.parametrize("mode", ["retract", "in_place"])
def test_requests_go_on_where_they_were(http, undisturbed, mode):
    soft, discrete, other = _paused(http, mode)
    for answer in (soft, other):
        assert answer["text"] == undisturbed[0]["text"]
        traces = [a["meta_info"]["soft_thinking"] for a in (answer, undisturbed[0])]
        assert same_trace(*traces)
    assert discrete["text"] == undisturbed[1]["text"]
    assert "soft_thinking" not in discrete["meta_info"]
    retractions = [a["meta_info"]["num_retractions"] for a in (soft, discrete, other)]
    assert retractions == [int(mode == "retract")] * 3


def test_aborted_requests_say_so(server, http, undisturbed):
    soft, discrete, _ = _paused(http, "abort")
    assert soft["meta_info"]["finish_reason"]["type"] == "abort"
    told, whole = (a["meta_info"]["soft_thinking"] for a in (soft, undisturbed[0]))
    if len(soft["output_ids"]) <= whole["steps"]:
        assert (told["end"], told["steps"]) == ("abort", len(told["concepts"]))
    assert discrete["meta_info"]["finish_reason"]["type"] == "abort"
    assert server.is_healthy()
