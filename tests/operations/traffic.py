"""Random traffic of a server: soft and discrete requests, aborts, disconnects, malformed bodies."""

import asyncio
import itertools
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from asking import same_trace
from tolerances import BUNDLED_TRACE_WEIGHT
from traces import close, is_clear

ABORTED, DISCONNECTED, MALFORMED = 0.10, 0.10, 0.05
"""Shares of the requests."""
CONCURRENCY = 40
"""More than the server runs at a time, so that requests queue."""

_QUESTIONS = [f"What is {a}*{b}?" for a, b in ((43, 34), (12, 67), (98, 89), (51, 15), (77, 23))]
_SOFT: list[Any] = [
    False,
    False,
    {"max_topk": 5},
    {"max_topk": 20, "early_stopping_entropy_threshold": 0},
    {"early_stopping_entropy_threshold": 100, "early_stopping_length_threshold": 7},
    {"noise": "gumbel"},
    {"noise": "dirichlet", "gumbel_softmax_temperature": 0.3},
    {"max_thinking_steps": 6, "cold_stop_str": "so, enough.</think>"},
    {"max_thinking_steps": 20, "rethink": True, "think_start_str": "the answer"},
    {"start": "answer"},
]
_LENGTHS = (1, 2, 9, 30, 120)
_BAD: list[dict[str, Any]] = [
    {"soft_thinking": "yes"},
    {"soft_thinking": {"max_topk": 0}},
    {"soft_thinking": {"max_topk": 10**30}},
    {"soft_thinking": {"noise": ["gumbel"]}},
    {"soft_thinking": {"think_end_str": "日"}},
    {"soft_thinking": {"cold_stop_str": "enough"}},
    {"soft_thinking": {"": 1}},
    {"soft_thinking": True, "max_tokens": -3},
    {"soft_thinking": True, "custom_params": 5},
    {"soft_thinking": True, "prompt": None},
]


@dataclass(frozen=True)
class Kind:
    """A request whose result is always the same."""

    body: str
    """JSON of ``/v1/completions``."""

    def with_(self, **more: Any) -> dict[str, Any]:
        """The body with more fields."""
        return {**json.loads(self.body), **more}


@dataclass(frozen=True)
class Result:
    """What a request gave."""

    text: str
    finish_reason: str | None
    soft: dict[str, Any] | None


def kinds(count: int, draw: random.Random) -> list[Kind]:
    """A few kinds out of all combinations."""
    bodies = []
    for question, soft, length in itertools.product(_QUESTIONS, _SOFT, _LENGTHS):
        traced = (
            {**soft, "return_concepts": True, "after_thinking_temperature": 0} if soft else soft
        )
        body = {
            "model": "any",
            "prompt": f"<|user|>{question}<|assistant|><think>",
            "max_tokens": length,
            "temperature": 0.8 if soft else 0,
            "seed": 11,
            "soft_thinking": traced,
        }
        bodies.append(Kind(json.dumps(body)))
    return draw.sample(bodies, count)


@dataclass
class Traffic:
    """Sends requests and keeps what became of them."""

    http: httpx.AsyncClient
    draw: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[Kind, Result, Result]] = field(default_factory=list)
    """Kind, what came, what was expected."""

    async def alone(self, kind: Kind) -> Result:
        """The result of a kind on an idle server."""
        response = await self.http.post("/v1/completions", json=kind.with_())
        response.raise_for_status()
        return _result(response.json())

    async def clear_results(self, kinds: list[Kind]) -> dict[Kind, Result]:
        """The results of kinds on an idle server, but of those that hang on rounding."""
        results = {kind: await self.alone(kind) for kind in kinds}
        return {
            kind: result
            for kind, result in results.items()
            if result.soft is None or is_clear(result.soft["concepts"])
        }

    async def run(self, count: int, expected: dict[Kind, Result]) -> None:
        """Send so many requests, a bounded number of them at a time."""
        places = asyncio.Semaphore(CONCURRENCY)

        async def one(number: int) -> None:
            async with places:
                await self._one(number, expected)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(number))

    async def _one(self, number: int, expected: dict[Kind, Result]) -> None:
        kind = self.draw.choice(list(expected))
        fate = self.draw.random()
        tokens = self.draw.randrange(12)
        if fate < ABORTED:
            rid = f"aborted-{self.draw.getrandbits(32)}-{number}"
            await self._abort(kind, expected[kind], rid, tokens)
        elif fate < ABORTED + DISCONNECTED:
            await self._disconnect(kind, tokens)
        elif fate < ABORTED + DISCONNECTED + MALFORMED:
            await self._malformed(kind)
        else:
            await self._whole(kind, expected[kind], stream=self.draw.random() < 0.5)

    async def _whole(self, kind: Kind, expected: Result, stream: bool) -> None:
        if stream:
            got = await self._stream(kind.with_(stream=True))
        else:
            got = await self.alone(kind)
        same = _same(got, expected)
        self.outcomes["right" if same else "wrong"] += 1
        if not same:
            self.wrong.append((kind, got, expected))

    async def _abort(self, kind: Kind, expected: Result, rid: str, tokens: int) -> None:
        async def abort() -> None:
            await self.http.post("/abort_request", json={"rid": rid})

        got = await self._stream(kind.with_(stream=True, rid=rid), after=tokens, then=abort)
        aborted = got.finish_reason == "abort"
        self.outcomes["aborted" if aborted else "finished first"] += 1
        if not (_begins(got, expected) if aborted else _same(got, expected)):
            self.wrong.append((kind, got, expected))

    async def _disconnect(self, kind: Kind, tokens: int) -> None:
        body = kind.with_(stream=True)
        async with self.http.stream("POST", "/v1/completions", json=body) as response:
            lines = response.aiter_lines()
            for _ in range(tokens):
                await anext(lines, None)
        self.outcomes["disconnected"] += 1

    async def _malformed(self, kind: Kind) -> None:
        body = kind.with_(**self.draw.choice(_BAD))
        response = await self.http.post("/v1/completions", json=body)
        self.outcomes[f"refused with {response.status_code}"] += 1

    async def _stream(self, body: dict[str, Any], after: int = -1, then: Any = None) -> Result:
        text, reason, soft, seen = "", None, None, 0
        async with self.http.stream("POST", "/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if seen == after:
                    await then()
                seen += 1
                if not line.startswith("data: {"):
                    continue
                (choice,) = json.loads(line.removeprefix("data: "))["choices"] or [None]
                if choice is None:
                    continue
                text += choice["text"]
                reason = choice["finish_reason"] or reason
                part = choice.get("soft_thinking")
                if part is not None:
                    told = [*(soft or {}).get("concepts", ()), *part["concepts"]]
                    soft = {**(soft or {}), **part, "concepts": told}
        return Result(text, reason, soft)


def _result(answer: dict[str, Any]) -> Result:
    (choice,) = answer["choices"]
    return Result(choice["text"], choice["finish_reason"], choice.get("soft_thinking"))


def _same(got: Result, expected: Result) -> bool:
    if (got.text, got.finish_reason) != (expected.text, expected.finish_reason):
        return False
    if got.soft is None or expected.soft is None:
        return got.soft is expected.soft
    return same_trace(got.soft, expected.soft)


def _begins(got: Result, expected: Result) -> bool:
    """Whether an aborted result is the beginning of the expected one."""
    if got.soft is None or expected.soft is None:
        return got.soft is expected.soft and expected.text.startswith(got.text)
    told, all_ = got.soft["concepts"], expected.soft["concepts"]
    return expected.text.startswith(got.text) and close(
        told, all_[: len(told)], BUNDLED_TRACE_WEIGHT
    )
