"""The Engine's own interface: sync, async, streams, and the names of the public implementation."""

import asyncio

import pytest
from traces import close

from soft_sglang import Engine

PROMPT = [17, 42, 99, 5, 64]
SAMPLING = {"temperature": 0.8, "max_new_tokens": 12, "ignore_eos": True}
CONCEPTS = {"return_concepts": True, "max_topk": 4}


def _answer(output: dict) -> dict:
    return output["meta_info"]["soft_thinking"]


def test_async_and_sync_agree(engine):
    sampling = {**SAMPLING, "soft_thinking": CONCEPTS}

    async def generate() -> dict:
        return await engine.async_generate(input_ids=PROMPT, sampling_params=sampling)

    alone = engine.loop.run_until_complete(generate())
    again = _answer(engine.generate(input_ids=PROMPT, sampling_params=sampling))
    assert close(_answer(alone)["concepts"], again["concepts"])


def test_a_stream_tells_every_step_once(engine):
    sampling = {**SAMPLING, "soft_thinking": CONCEPTS}
    whole = _answer(engine.generate(input_ids=PROMPT, sampling_params=sampling))
    chunks = list(engine.generate(input_ids=PROMPT, sampling_params=sampling, stream=True))
    told = [c for chunk in chunks for c in _answer(chunk)["concepts"]]
    assert len(chunks) > 1
    assert close(told, whole["concepts"])
    last = _answer(chunks[-1])
    assert (last["steps"], last["end"]) == (whole["steps"], whole["end"])
    assert all("steps" not in _answer(chunk) for chunk in chunks[:-1])


def test_async_streams_side_by_side(engine):
    async def stream(prompt: list[int], soft: bool) -> list[dict]:
        sampling = {**SAMPLING, **({"soft_thinking": CONCEPTS} if soft else {})}
        generator = await engine.async_generate(
            input_ids=prompt, sampling_params=sampling, stream=True
        )
        return [chunk async for chunk in generator]

    async def both() -> tuple[list[dict], list[dict]]:
        return await asyncio.gather(stream(PROMPT, True), stream(PROMPT[::-1], False))

    soft, discrete = engine.loop.run_until_complete(both())
    assert len([c for chunk in soft for c in _answer(chunk)["concepts"]]) == 12
    assert all("soft_thinking" not in chunk["meta_info"] for chunk in discrete)


def test_every_request_of_a_batch_has_its_own_parameters(engine):
    fields = [False, True, {"max_topk": 1, "return_concepts": True}, CONCEPTS, {"enabled": False}]
    outputs = engine.generate(
        input_ids=[PROMPT] * len(fields),
        sampling_params=[{**SAMPLING, "soft_thinking": field} for field in fields],
    )
    shapes = [output["meta_info"].get("soft_thinking", {}).keys() for output in outputs]
    summary = {"steps", "end", "mean_entropy", "longest_run"}
    assert shapes == [set(), summary, summary | {"concepts"}, summary | {"concepts"}, set()]
    assert {len(concept) for concept in _answer(outputs[2])["concepts"]} == {1}
    assert {len(concept) for concept in _answer(outputs[3])["concepts"]} == {4}


def test_noise_is_replayed_from_its_seed(engine):
    def trace(seed: int | None, n: int = 1, noise: str = "gumbel") -> list:
        sampling = {**SAMPLING, "n": n, "soft_thinking": {**CONCEPTS, "noise": noise}}
        if seed is not None:
            sampling["sampling_seed"] = seed
        outputs = engine.generate(input_ids=PROMPT, sampling_params=sampling)
        return [_answer(o)["concepts"] for o in (outputs if n > 1 else [outputs])]

    for noise in ("gumbel", "dirichlet"):
        (alone,) = trace(7, noise=noise)
        three = trace(7, n=3, noise=noise)
        assert all(map(close, three, trace(7, n=3, noise=noise)))
        assert close(three[0], alone)
        assert close(three[1], trace(8, noise=noise)[0])
        assert not close(three[0], three[1])
        assert not close(three[1], three[2])
        assert not close(trace(None, noise=noise)[0], trace(None, noise=noise)[0])


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"max_topk": 33}, r"soft_thinking\.max_topk must be an integer from 1 to 32, got 33"),
        ({"topk": 3}, "unknown field 'topk'; allowed are enabled, max_topk"),
        ("yes", "must be true, false or an object"),
        ({"think_end_str": "w4 " * 17}, "think_end_str must be 1 to 16 tokens .* is 17 tokens"),
    ],
)
def test_bad_requests_raise_and_the_engine_lives_on(engine, field, message):
    with pytest.raises(ValueError, match=message):
        engine.generate(input_ids=PROMPT, sampling_params={**SAMPLING, "soft_thinking": field})
    assert engine.generate(input_ids=PROMPT, sampling_params=SAMPLING)["output_ids"]


def test_names_of_the_public_implementation(house, tiny_model):
    engine = house.get(
        tiny_model("llama"),
        enable_soft_thinking=True,
        max_topk=5,
        add_noise_gumbel_softmax=True,
        think_end_str="</think>",
    )
    sampling = {
        **SAMPLING,
        "sampling_seed": 3,
        "early_stopping_entropy_threshold": 6.0,
        "early_stopping_length_threshold": 9,
        "after_thinking_temperature": 0.7,
        "after_thinking_top_p": 0.95,
        "after_thinking_top_k": 1,
        "after_thinking_min_p": 0.0,
        "gumbel_softmax_temperature": 0.4,
        "dirichlet_alpha": 1.0,
    }
    soft = engine.generate(input_ids=PROMPT, sampling_params=sampling)
    explicit = {**SAMPLING, "sampling_seed": 3, "soft_thinking": {"return_concepts": True}}
    (concept, *_) = _answer(engine.generate(input_ids=PROMPT, sampling_params=explicit))["concepts"]
    off = engine.generate(input_ids=PROMPT, sampling_params={**sampling, "soft_thinking": False})
    assert (_answer(soft)["steps"], _answer(soft)["end"]) == (9, "cold_stop")
    assert len(concept) == 5
    assert "soft_thinking" not in off["meta_info"]


def test_engine_arguments_are_checked():
    with pytest.raises(ValueError, match="max_topk must be an integer from 1 to 1024, got 0"):
        Engine(max_topk=0)
    with pytest.raises(ValueError, match="exclude each other"):
        Engine(add_noise_gumbel_softmax=True, add_noise_dirichlet=True)
    with pytest.raises(ValueError, match="does not support speculative decoding"):
        Engine(speculative_algorithm="NGRAM")
