"""Load with aborts, disconnects and bad requests: nothing lost or leaked (invariant 7)."""

import asyncio
import random
import time

import httpx
import psutil
import pytest
from metric_samples import scrape, total
from traffic import Traffic, kinds

MEMORY_GROWTH = 64 << 20
"""Bytes, over the second half of the traffic; buffers of the allocator come and go."""
IDLE_WITHIN = 60
"""Seconds."""


def _check_nothing_is_left(http: httpx.Client) -> None:
    """Wait until the server is idle; what is still held then leaked. The cache holds prompts."""
    deadline = time.monotonic() + IDLE_WITHIN
    held = ("num_running_reqs", "num_waiting_reqs", "num_used_tokens")
    while True:
        (load,) = http.get("/v1/loads").json()["loads"]
        if not any(load[name] for name in held):
            return
        assert time.monotonic() < deadline, {name: load[name] for name in held}
        time.sleep(0.2)


def _memory(pid: int) -> int:
    """Bytes that the server's processes hold."""
    parent = psutil.Process(pid)
    return sum(p.memory_info().rss for p in [parent, *parent.children(recursive=True)])


@pytest.mark.parametrize("count", [240, pytest.param(2000, marks=pytest.mark.slow)])
def test_soak(server, http, count):
    draw = random.Random(count)
    before = scrape(http)

    async def soak() -> tuple[Traffic, int, int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=server.url, headers=http.headers, timeout=600, limits=limits
        ) as client:
            traffic = Traffic(client, draw)
            some = kinds(min(count // 10, 60), draw)
            expected = await traffic.clear_results(some)
            assert len(expected) > 0.8 * len(some)
            await traffic.run(count // 2, expected)
            middle = _memory(server.pid)
            await traffic.run(count - count // 2, expected)
            return traffic, middle, _memory(server.pid)

    traffic, middle, end = asyncio.run(soak())
    print(dict(traffic.outcomes), f"memory {middle >> 20} MiB, then {end >> 20} MiB")
    _check_nothing_is_left(http)

    outcomes = traffic.outcomes
    assert not traffic.wrong, traffic.wrong[0]
    assert outcomes.total() == count
    assert outcomes["right"] > 0.6 * count
    for fate in ("aborted", "disconnected", "refused with 400"):
        assert outcomes[fate] > 0, outcomes
    assert not any(name.startswith("refused") and name != "refused with 400" for name in outcomes)
    assert end - middle < MEMORY_GROWTH
    _check_every_soft_request_ended(before, http)
    _check_rows_are_clean(http)
    assert server.is_healthy()


def _check_every_soft_request_ended(before, http):
    """What arrived also ended, aborted and abandoned requests included."""
    after = scrape(http)

    def change(name: str) -> float:
        return total(after, name) - total(before, name)

    assert change("soft_sglang:requests_total") > 0
    assert change("soft_sglang:requests_total") == change("soft_sglang:ends_total")
    assert change("soft_sglang:thinking_steps_total") == change("soft_sglang:entropy_nats_count")


def _check_rows_are_clean(http):
    """Discrete requests in every slot, side by side, equal one alone: no row is soft any more."""
    slots = http.get("/v1/loads").json()["loads"][0]["max_running_requests"]
    prompt = "<|user|>What is 43*34?<|assistant|><think>"
    sampling = {"temperature": 0, "max_new_tokens": 40}
    body = {"text": [prompt] * slots, "sampling_params": sampling}
    alone = http.post("/generate", json={**body, "text": prompt}).json()
    together = http.post("/generate", json=body).json()
    assert len(together) == slots
    assert {output["text"] for output in together} == {alone["text"]}
    assert not any("soft_thinking" in output["meta_info"] for output in together)
