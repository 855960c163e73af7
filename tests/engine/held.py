"""Requests in flight while something happens to their engine."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sglang.srt.managers.io_struct import ContinueGenerationReqInput, PauseGenerationReqInput

STARTED = 4
"""Tokens of every request when it happens."""
IDLE_WITHIN = 60
"""Seconds."""


def while_in_flight(
    engine: Any,
    prompts: Sequence[list[int]],
    samplings: Sequence[dict[str, Any]],
    happens: Callable[[], Awaitable[Any]],
) -> list[dict[str, Any]]:
    """The outputs of requests to which something ``happens`` when all of them are under way.

    The last chunk of each stream, with the concepts of all.
    """
    begun = [asyncio.Event() for _ in prompts]

    async def ask(i: int) -> dict[str, Any]:
        stream = await engine.async_generate(
            input_ids=prompts[i], sampling_params=samplings[i], stream=True
        )
        concepts: list[Any] = []
        last: dict[str, Any] = {}
        async for last in stream:
            concepts += last["meta_info"].get("soft_thinking", {}).get("concepts", ())
            if last["meta_info"]["completion_tokens"] >= STARTED:
                begun[i].set()
        if "soft_thinking" in last["meta_info"]:
            last["meta_info"]["soft_thinking"]["concepts"] = concepts
        return last

    async def together() -> list[dict[str, Any]]:
        tasks = [asyncio.ensure_future(ask(i)) for i in range(len(prompts))]
        await asyncio.gather(*(event.wait() for event in begun))
        assert not any(task.done() for task in tasks), "a request ended before it was held"
        await happens()
        return list(await asyncio.gather(*tasks))

    outputs: list[dict[str, Any]] = engine.loop.run_until_complete(together())
    return outputs


async def pause(engine: Any, mode: str) -> None:
    """What ``/pause_generation`` does."""
    await engine.tokenizer_manager.pause_generation(PauseGenerationReqInput(mode=mode))


async def go_on(engine: Any) -> None:
    """What ``/continue_generation`` does."""
    await engine.tokenizer_manager.continue_generation(ContinueGenerationReqInput())


def check_nothing_is_held(engine: Any) -> None:
    """Wait until the engine is idle; fail if it still holds requests or key-value tokens then."""
    deadline = time.monotonic() + IDLE_WITHIN
    while True:
        (load,) = engine.loop.run_until_complete(engine.tokenizer_manager.get_loads())
        held = (load.num_running_reqs, load.num_waiting_reqs, load.num_used_tokens)
        if not any(held):
            return
        assert time.monotonic() < deadline, held
        time.sleep(0.2)
