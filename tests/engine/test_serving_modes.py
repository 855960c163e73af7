"""How a server hands out tokens, takes them in and keeps them changes no soft request."""

import asyncio

import pytest
import varied_requests

MODES = {
    "chunks of their own": {
        "incremental_streaming_output": True,
        "stream_interval": 3,
        "batch_notify_size": 2,
    },
    "batches of texts": {"enable_dynamic_batch_tokenizer": True, "num_continuous_decode_steps": 3},
    "nothing is kept": {"disable_radix_cache": True, "disable_overlap_schedule": True},
    "a plain tree": {"radix_eviction_policy": "lfu", "enable_session_radix_cache": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODES)
def test_modes_of_serving_change_no_result(name, plain_outputs, house, tiny_model):
    engine = house.get(tiny_model("llama"), **MODES[name])
    varied_requests.check_same(varied_requests.run(engine), plain_outputs)
    varied_requests.check_same(_streamed(engine), plain_outputs)


def _streamed(engine):
    """The same as streams, put together from their chunks."""
    incremental = engine.server_args.incremental_streaming_output

    async def one(prompt, sampling):
        ids, concepts, last = [], [], {}
        chunks = await engine.async_generate(
            input_ids=prompt, sampling_params=sampling, stream=True
        )
        async for last in chunks:
            ids = [*ids, *last["output_ids"]] if incremental else last["output_ids"]
            told = last["meta_info"].get("soft_thinking")
            if told is not None:
                concepts += told["concepts"]
                assert len(concepts) <= len(ids)
        if concepts:
            last["meta_info"]["soft_thinking"]["concepts"] = concepts
        return {**last, "output_ids": ids}

    async def together():
        pairs = zip(varied_requests.PROMPTS, varied_requests.SAMPLINGS, strict=True)
        return await asyncio.gather(*(one(*pair) for pair in pairs))

    return engine.loop.run_until_complete(together())
