"""What happens when the queue is full, a client dies, or a scheduler does."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from failing_processor import MESSAGE, Failing
from server_process import Server

RUNNING, QUEUED = 2, 2
WITHIN = 60
"""Seconds."""
LONG = {
    "text": "<|user|>What is 43*34?<|assistant|><think>",
    "sampling_params": {
        "temperature": 0.6,
        "max_new_tokens": 600,
        "ignore_eos": True,
        "soft_thinking": {"early_stopping_entropy_threshold": 0},
    },
}
CLIENT = """
import httpx, sys
headers = {"Content-Type": "application/json"}
with httpx.stream("POST", sys.argv[1], content=sys.argv[2], headers=headers) as response:
    for line in response.iter_lines():
        print(line, flush=True)
"""


@pytest.fixture(scope="module")
def frail(tmp_path_factory):
    """A server that takes few requests, and code of its clients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the processor's class is there
        server = Server(
            tmp_path_factory.mktemp("frail"),
            *("--max-running-requests", str(RUNNING), "--max-queued-requests", str(QUEUED)),
            "--enable-custom-logit-processor",
        )
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def _running(http: httpx.Client) -> int:
    (load,) = http.get("/v1/loads").json()["loads"]
    return load["num_running_reqs"] + load["num_waiting_reqs"]


def test_a_full_queue_refuses_and_loses_nothing(frail):
    with frail.http() as http, ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: http.post("/generate", json=LONG), range(12)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= QUEUED
        for answer in answers:
            if answer.status_code == 200:
                meta = answer.json()["meta_info"]
                assert meta["completion_tokens"] == 600
                assert meta["soft_thinking"]["steps"] > 0
            else:
                assert "queue is full" in answer.text
        assert http.post("/generate", json=LONG).status_code == 200


def test_a_killed_client_frees_its_place(frail):
    body = {**LONG, "stream": True, "sampling_params": {**LONG["sampling_params"]}}
    body["sampling_params"]["max_new_tokens"] = 900
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, f"{frail.url}/generate", json.dumps(body)],
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    with client.stdout, frail.http() as http:
        for _ in range(3):
            assert client.stdout.readline()
        assert _running(http) == 1
        client.kill()
        client.wait()
        deadline = time.monotonic() + WITHIN
        while _running(http):
            assert time.monotonic() < deadline, "the request goes on without its client"
            time.sleep(0.1)
    assert frail.is_healthy()


def test_an_exception_in_the_scheduler_ends_the_whole_server(frail):
    """As stock SGLang: no half-dead server stays, and a supervisor can start a new one."""
    processes = [psutil.Process(frail.pid)]
    processes += processes[0].children(recursive=True)
    body = {**LONG, "custom_logit_processor": Failing.to_str()}
    with frail.http() as http, pytest.raises(httpx.TransportError):
        http.post("/generate", json=body)
    _, alive = psutil.wait_procs(processes, timeout=WITHIN)
    assert not alive
    assert not frail.alive
    assert MESSAGE in frail.log.read_text()
