"""Random company: requests that arrive while others run, and some that leave early."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_numbers = itertools.count()


@dataclass(frozen=True)
class Visit:
    """One request of a schedule."""

    kind: int
    """Which of the known requests."""
    arrival: int
    """Number of tokens that all requests together have streamed when this one is sent."""
    leaves_after: int | None
    """Aborted after so many of its own tokens; None: stays to its end."""


@dataclass
class Company:
    """Runs schedules on an engine; time is counted in tokens, so nothing waits for a clock."""

    engine: Any
    prompts: Sequence[list[int]]
    samplings: Sequence[dict[str, Any]]
    most_together: int = 0
    """Largest number of requests that had begun and not ended to stream."""
    _streaming: int = 0
    _streamed: int = 0
    _running: int = 0
    _waiting: list[tuple[int, asyncio.Event]] = field(default_factory=list)

    def run(self, visits: Sequence[Visit]) -> list[dict[str, Any]]:
        """The last output of each request."""

        async def together() -> list[dict[str, Any]]:
            self._streamed = self._running = 0
            self._waiting = []
            return await asyncio.gather(*(self._visit(visit) for visit in visits))

        return self.engine.loop.run_until_complete(together())

    async def _visit(self, visit: Visit) -> dict[str, Any]:
        await self._arrive(visit.arrival)
        rid = f"visit-{next(_numbers)}"
        stream = await self.engine.async_generate(
            input_ids=self.prompts[visit.kind],
            sampling_params=self.samplings[visit.kind],
            stream=True,
            rid=rid,
        )
        concepts: list[Any] = []
        last: dict[str, Any] = {}
        async for output in stream:
            if not last:
                self._streaming += 1
                self.most_together = max(self.most_together, self._streaming)
            last = output
            concepts += last["meta_info"].get("soft_thinking", {}).get("concepts", ())
            self._advance()
            if last["meta_info"]["completion_tokens"] == visit.leaves_after:
                self.engine.tokenizer_manager.abort_request(rid)
        self._streaming -= 1
        self._running -= 1
        self._advance()
        return {**last, "concepts": concepts}

    async def _arrive(self, arrival: int) -> None:
        turn = asyncio.Event()
        self._waiting.append((arrival, turn))
        asyncio.get_running_loop().call_soon(self._release)
        await turn.wait()

    def _advance(self) -> None:
        self._streamed += 1
        self._release()

    def _release(self) -> None:
        """Let in whose turn it is, and the next one if nobody runs."""
        self._waiting.sort(key=lambda entry: entry[0])
        while self._waiting and (self._waiting[0][0] <= self._streamed or not self._running):
            self._running += 1
            self._waiting.pop(0)[1].set()
