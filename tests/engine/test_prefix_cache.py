"""Key-value pairs computed from concepts are found by nobody; prompts are shared (invariant 4)."""

import pytest
from house import PAGED
from oracle import Oracle
from tiny_models import THINK_END
from traces import close

LENGTH = 40
# a random model magnifies rounding from step to step: 40 steps reach 4e-4
SAMPLING = {"temperature": 0.8, "max_new_tokens": 16, "ignore_eos": True}
GREEDY = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}
SOFT = {"return_concepts": True, "max_topk": 6, "early_stopping_entropy_threshold": 0}
ENDS = {
    "length": {},
    "stop": {},
    "cold_stop": {
        "soft_thinking": {
            **SOFT,
            "early_stopping_entropy_threshold": 6.0,
            "early_stopping_length_threshold": 10,
        }
    },
    "first_token": {"max_new_tokens": 1},
    "second_token": {"max_new_tokens": 2},
}


@pytest.fixture(params=[1, 16], ids=lambda size: f"page_size={size}")
def cached_engine(request, house, tiny_model):
    environment = PAGED if request.param > 1 else None
    return house.get(tiny_model("llama"), environment, page_size=request.param)


@pytest.fixture(scope="module")
def oracle(tiny_model):
    return Oracle(tiny_model("llama"))


def _prompt(number: int) -> list[int]:
    """Prompts that share no prefix."""
    return [100 + number, *range(20, 19 + LENGTH)]


@pytest.mark.parametrize("end", ENDS)
def test_nobody_finds_what_a_soft_request_computed(cached_engine, oracle, end):
    engine, prompt = cached_engine, _prompt(list(ENDS).index(end))
    sampling = {**SAMPLING, "soft_thinking": SOFT, **ENDS[end]}
    if end == "stop":
        whole = engine.generate(
            input_ids=prompt, sampling_params={**SAMPLING, "soft_thinking": SOFT}
        )
        # ignore_eos ignores stop tokens too
        sampling |= {"stop_token_ids": [whole["output_ids"][10]], "ignore_eos": False}
    soft = engine.generate(input_ids=prompt, sampling_params=sampling)
    emitted = soft["output_ids"]

    follow_up = prompt + emitted + [7, 8, 9]
    output = engine.generate(input_ids=follow_up, sampling_params=GREEDY)
    assert output["output_ids"] == oracle.greedy(follow_up, GREEDY["max_new_tokens"])
    cached = output["meta_info"]["cached_tokens"]
    page = engine.server_args.page_size
    assert cached == LENGTH // page * page
    # and what that discrete request left is not found by a soft one either, past its prompt
    again = engine.generate(input_ids=prompt, sampling_params=sampling)
    assert close(
        again["meta_info"]["soft_thinking"]["concepts"],
        soft["meta_info"]["soft_thinking"]["concepts"],
    )


def test_soft_requests_share_their_prompt(cached_engine):
    engine, prompt = cached_engine, _prompt(10)
    page = engine.server_args.page_size
    sampling = {**SAMPLING, "soft_thinking": {**SOFT, "noise": "gumbel"}, "max_new_tokens": 8}
    outputs = [engine.generate(input_ids=prompt, sampling_params=sampling) for _ in range(10)]
    cached = [output["meta_info"]["cached_tokens"] for output in outputs]
    assert cached == [0] + [(LENGTH - 1) // page * page] * 9

    prompt = _prompt(11)
    samples = engine.generate(input_ids=prompt, sampling_params={**sampling, "n": 10})
    assert {o["meta_info"]["cached_tokens"] for o in samples} == {(LENGTH - 1) // page * page}


def test_an_aborted_request_leaves_only_its_prompt(cached_engine, oracle):
    engine, prompt = cached_engine, _prompt(12)
    sampling = {**SAMPLING, "max_new_tokens": 900, "soft_thinking": SOFT}
    sampling["logit_bias"] = {str(THINK_END): -100}
    stream = engine.generate(input_ids=prompt, sampling_params=sampling, stream=True, rid="gone")
    for chunk in stream:
        if chunk["meta_info"]["completion_tokens"] >= 30:
            engine.tokenizer_manager.abort_request("gone")
            break
    *_, last = [chunk, *stream]
    assert last["meta_info"]["finish_reason"]["type"] == "abort"
    assert last["meta_info"]["soft_thinking"]["end"] == "abort"
    follow_up = prompt + last["output_ids"][:30] + [7]
    output = engine.generate(input_ids=follow_up, sampling_params=GREEDY)
    assert output["output_ids"] == oracle.greedy(follow_up, GREEDY["max_new_tokens"])
    page = engine.server_args.page_size
    assert output["meta_info"]["cached_tokens"] == LENGTH // page * page
