"""A soft request that is aborted while it waits says how far it came."""

import asyncio

PROMPT = [17, 42, 99, 5, 64]
SAMPLING = {"temperature": 0.8, "max_new_tokens": 60, "ignore_eos": True}
SOFT = {"return_concepts": True, "early_stopping_entropy_threshold": 0}

ONE_AT_A_TIME = {"max_running_requests": 1, "enable_priority_scheduling": True}


def test_a_request_aborted_in_the_queue_has_an_answer(house, tiny_model):
    engine = house.get(tiny_model("llama"), **ONE_AT_A_TIME)
    manager = engine.tokenizer_manager

    async def stream(rid: str, soft: dict | bool, on_first_token=None) -> dict:
        sampling = {**SAMPLING, "soft_thinking": soft}
        chunks = await engine.async_generate(
            input_ids=PROMPT, sampling_params=sampling, rid=rid, stream=True
        )
        last = {}
        async for last in chunks:
            if on_first_token is not None and last["meta_info"]["completion_tokens"] == 1:
                on_first_token()
        return last

    def abort_the_others() -> None:
        for rid in ("queued", "queued-discrete"):
            manager.abort_request(rid)

    async def together() -> list[dict]:
        running = asyncio.ensure_future(stream("running", SOFT, abort_the_others))
        await asyncio.sleep(0)  # is sent first
        return await asyncio.gather(
            running, stream("queued", SOFT), stream("queued-discrete", False)
        )

    running, queued, discrete = engine.loop.run_until_complete(together())
    assert running["meta_info"]["soft_thinking"]["steps"] == SAMPLING["max_new_tokens"]
    for output in (queued, discrete):
        assert output["meta_info"]["finish_reason"]["type"] == "abort"
        assert output["meta_info"]["completion_tokens"] == 0
    assert set(queued["meta_info"]["finish_reason"]) == set(discrete["meta_info"]["finish_reason"])
    assert queued["meta_info"]["soft_thinking"] == {
        "steps": 0,
        "end": "abort",
        "mean_entropy": 0.0,
        "longest_run": 0,
        "concepts": [],
    }
    assert "soft_thinking" not in discrete["meta_info"]


def test_a_request_aborted_after_it_gave_way_tells_its_steps(house, tiny_model):
    engine = house.get(tiny_model("llama"), **ONE_AT_A_TIME)
    sampling = {**SAMPLING, "max_new_tokens": 400, "soft_thinking": SOFT}

    async def together() -> tuple[dict, list]:
        concepts, last, urgent = [], {}, None
        chunks = await engine.async_generate(
            input_ids=PROMPT, sampling_params=sampling, rid="preempted", stream=True, priority=0
        )
        async for last in chunks:
            concepts += last["meta_info"]["soft_thinking"]["concepts"]
            if last["meta_info"]["completion_tokens"] >= 20 and urgent is None:
                urgent = asyncio.ensure_future(run_urgently())
        await urgent
        return last, concepts

    async def run_urgently() -> None:
        chunks = await engine.async_generate(
            input_ids=PROMPT[::-1], sampling_params=sampling, stream=True, priority=100
        )
        async for chunk in chunks:  # the other one waits since this one's first token
            if chunk["meta_info"]["completion_tokens"] == 1:
                engine.tokenizer_manager.abort_request("preempted")

    last, concepts = engine.loop.run_until_complete(together())
    finish = last["meta_info"]["finish_reason"]
    assert (finish["type"], finish["message"]) == ("abort", "Abort in waiting queue")
    soft = last["meta_info"]["soft_thinking"]
    assert (soft["end"], soft["steps"]) == ("abort", len(concepts))
    assert soft["steps"] >= 20
    assert soft["mean_entropy"] > 0
