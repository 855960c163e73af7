"""A soft request that gives way to one of higher priority goes on where it was."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from logit_processors import PromptBias
from soft_requests import COLD, NATURAL, PLAIN, TOWARDS_THE_END, greedy
from traces import close

LONG = {"max_new_tokens": 90}
"""None is done before the urgent ones come."""
KINDS: dict[str, dict[str, Any]] = {
    "thinking": {"sampling_params": PLAIN.sampling_params(**LONG)},
    "answering": {"sampling_params": replace(COLD, length_threshold=4).sampling_params(**LONG)},
    "before cold stop": {
        "sampling_params": replace(COLD, length_threshold=24).sampling_params(**LONG)
    },
    "before its own end": {
        "input_ids": NATURAL.prompt,
        "sampling_params": NATURAL.sampling_params(logit_bias=TOWARDS_THE_END, **LONG),
    },
    "grammar": {
        "sampling_params": COLD.sampling_params(regex="(w1[0-9]{2}){75}", **LONG),
        "require_reasoning": True,
    },
    "processor": {
        "sampling_params": PLAIN.sampling_params(custom_params={"amount": 1.0}, **LONG),
        "custom_logit_processor": PromptBias.to_str(),
    },
    "bias": {"sampling_params": COLD.sampling_params(logit_bias={"233": -1.0}, **LONG)},
    "discrete": {"sampling_params": greedy(PLAIN, **LONG)},
}
"""As many as the engine runs at a time."""
URGENT = {"input_ids": NATURAL.prompt, "sampling_params": COLD.sampling_params()}
STARTED = 8
"""Tokens of every request when the urgent ones come."""
COMPARED = PLAIN.steps
"""Tokens: after more, rounding errors have grown too large."""


class Crowd:
    """Requests in flight, and the order in which they finish."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.finished: list[str] = []

    async def ask(
        self, name: str, priority: int, started: asyncio.Event | None = None, **request: Any
    ) -> list[dict[str, Any]]:
        """The chunks of one request."""
        stream = await self.engine.async_generate(
            **{"input_ids": PLAIN.prompt, **request},
            priority=priority,
            stream=True,
            return_logprob=True,
        )
        chunks: list[dict[str, Any]] = []
        async for chunk in stream:
            chunks.append(chunk)
            if started is not None and len(chunk["output_ids"]) >= STARTED:
                started.set()
        self.finished.append(name)
        return chunks


@pytest.fixture
def alone(engine):
    """The last output of every request."""
    requests = {**KINDS, "urgent": URGENT}
    return {
        name: engine.generate(**{"input_ids": PLAIN.prompt, **request}, return_logprob=True)
        for name, request in requests.items()
    }


@pytest.fixture
def crowd(engine, alone):
    """All kinds, then as many urgent requests once they run: name -> chunks, and who came first."""
    crowd = Crowd(engine)

    async def run() -> dict[str, list[dict[str, Any]]]:
        events = {name: asyncio.Event() for name in KINDS}
        tasks = {
            name: asyncio.create_task(crowd.ask(name, 0, events[name], **request))
            for name, request in KINDS.items()
        }
        await asyncio.gather(*(event.wait() for event in events.values()))
        for i in range(len(KINDS)):
            tasks[f"urgent {i}"] = asyncio.create_task(crowd.ask("urgent", 100, **URGENT))
        return dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))

    return engine.loop.run_until_complete(run()), crowd.finished


def test_preempted_requests_end_as_they_would_have_alone(alone, crowd):
    chunks, finished = crowd
    assert finished[: len(KINDS)] == ["urgent"] * len(KINDS)
    for name, told in chunks.items():
        _check(name, told, alone[name if name in KINDS else "urgent"])


def _check(name: str, chunks: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    last, before = chunks[-1]["meta_info"], expected["meta_info"]
    assert (last["num_retractions"] > 0) == (name in KINDS), name
    assert chunks[-1]["output_ids"][:COMPARED] == expected["output_ids"][:COMPARED], name
    logprobs = [
        [value for value, _, _ in meta["output_token_logprobs"][:COMPARED]]
        for meta in (last, before)
    ]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-3)
    soft = before.get("soft_thinking")
    if soft is None:
        assert "soft_thinking" not in last
        return
    told = [c for chunk in chunks for c in chunk["meta_info"]["soft_thinking"]["concepts"]]
    assert close(told[:COMPARED], soft["concepts"][:COMPARED]), name
    if soft["steps"] <= COMPARED:
        assert last["soft_thinking"]["steps"] == soft["steps"]
        assert last["soft_thinking"]["end"] == soft["end"]
