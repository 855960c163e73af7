"""Requests that are held, in every way that SGLang holds them, give what undisturbed ones give."""

import pytest
import varied_requests
from held import check_nothing_is_held, go_on, pause, while_in_flight
from oracle import Oracle


@pytest.mark.parametrize("mode", ["retract", "in_place"])
def test_held_requests_give_what_undisturbed_ones_give(mode, changing_engine, plain_outputs):
    async def hold():
        await pause(changing_engine, mode)
        await go_on(changing_engine)

    outputs = while_in_flight(
        changing_engine, varied_requests.PROMPTS, varied_requests.SAMPLINGS, hold
    )
    varied_requests.check_same(outputs, plain_outputs)
    retracted = {output["meta_info"]["num_retractions"] for output in outputs}
    assert retracted == {1 if mode == "retract" else 0}


def test_aborted_requests_say_so_and_leave_nothing(changing_engine, plain_outputs, tiny_model):
    async def abort():
        await pause(changing_engine, "abort")
        await go_on(changing_engine)

    outputs = while_in_flight(
        changing_engine, varied_requests.PROMPTS, varied_requests.SAMPLINGS, abort
    )
    for output, whole in zip(outputs, plain_outputs, strict=True):
        meta, ids = output["meta_info"], output["output_ids"]
        assert meta["finish_reason"]["type"] == "abort"
        assert ids == whole["output_ids"][: len(ids)]
        assert 0 < len(ids) < varied_requests.STEPS
        soft = meta.get("soft_thinking")
        assert (soft is None) == ("soft_thinking" not in whole["meta_info"])
        if soft is not None and len(ids) <= whole["meta_info"]["soft_thinking"]["steps"]:
            assert (soft["end"], soft["steps"]) == ("abort", len(soft["concepts"]))
    check_nothing_is_held(changing_engine)

    # the rows are free for others
    varied_requests.check_same(varied_requests.run(changing_engine), plain_outputs)
    # and nobody finds what was computed from concepts
    prompt = varied_requests.PROMPTS[0] + outputs[0]["output_ids"] + [7]
    greedy = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}
    output = changing_engine.generate(input_ids=prompt, sampling_params=greedy)
    assert output["output_ids"] == Oracle(tiny_model("llama")).greedy(prompt, 12)
    assert output["meta_info"]["cached_tokens"] == len(varied_requests.PROMPTS[0])


def test_a_request_aborted_while_it_is_held_tells_its_steps(changing_engine):
    async def abort_all():
        await pause(changing_engine, "retract")
        changing_engine.tokenizer_manager.abort_request(abort_all=True)
        await go_on(changing_engine)

    outputs = while_in_flight(
        changing_engine, varied_requests.PROMPTS, varied_requests.SAMPLINGS, abort_all
    )
    for output in outputs:
        assert output["meta_info"]["finish_reason"]["type"] == "abort"
        soft = output["meta_info"].get("soft_thinking")
        if soft is not None and soft["end"] == "abort":
            assert soft["steps"] == len(soft["concepts"]) > 0
    assert any("soft_thinking" in output["meta_info"] for output in outputs)
    check_nothing_is_held(changing_engine)
