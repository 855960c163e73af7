"""Requests that are held, in every way that SGLang holds them, give what undisturbed ones give."""

import time

import pytest
import varied_requests
from held import check_nothing_is_held, go_on, pause, while_in_flight
from metric_samples import scrape_processes, total
from oracle import Oracle
from sglang.srt.managers.io_struct import (
    ReleaseMemoryOccupationReqInput,
    ResumeMemoryOccupationReqInput,
)

RANKS = ("0", "1")
SETTLED_WITHIN = 60
"""Seconds."""


async def _nothing(manager):
    pass


async def _flush(manager):
    assert (await manager.flush_cache()).success


async def _fail_to_flush(manager):
    assert not (await manager.flush_cache()).success


async def _release_memory(manager):
    await manager.release_memory_occupation(ReleaseMemoryOccupationReqInput())
    await manager.resume_memory_occupation(ResumeMemoryOccupationReqInput())


@pytest.mark.parametrize(
    ("mode", "meanwhile"),
    [
        ("retract", _nothing),
        ("retract", _flush),
        ("retract", _release_memory),
        ("in_place", _nothing),
        ("in_place", _fail_to_flush),
    ],
)
def test_held_requests_give_what_undisturbed_ones_give(
    mode, meanwhile, changing_engine, plain_outputs
):
    async def hold():
        await pause(changing_engine, mode)
        await meanwhile(changing_engine.tokenizer_manager)
        await go_on(changing_engine)

    outputs = while_in_flight(
        changing_engine, varied_requests.PROMPTS, varied_requests.SAMPLINGS, hold
    )
    varied_requests.check_same(outputs, plain_outputs)
    retracted = {output["meta_info"]["num_retractions"] for output in outputs}
    assert retracted == {1 if mode == "retract" else 0}


def test_every_rank_counts(changing_engine, metrics_folder):
    """``--enable-metrics-for-all-schedulers``: each rank of the two says the same."""
    before = _settled(metrics_folder)
    outputs = varied_requests.run(changing_engine)
    after = _settled(metrics_folder)
    told = [output["meta_info"].get("soft_thinking") for output in outputs]
    soft = [answer for answer in told if answer is not None]
    for rank in RANKS:
        for name, count in {
            "soft_sglang:requests_total": len(soft),
            "soft_sglang:ends_total": len(soft),
            "soft_sglang:thinking_steps_total": sum(answer["steps"] for answer in soft),
            "soft_sglang:cold_stops_total": sum(answer["end"] == "cold_stop" for answer in soft),
        }.items():
            labels = {"tp_rank": rank}
            assert total(after, name, **labels) - total(before, name, **labels) == count, name


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


def _settled(folder):
    """The metrics when every rank has counted the end of every request; one answers for all."""
    deadline = time.monotonic() + SETTLED_WITHIN
    while True:
        samples = scrape_processes(folder)
        counts = [
            total(samples, f"soft_sglang:{name}", tp_rank=rank)
            for rank in RANKS
            for name in ("requests_total", "ends_total")
        ]
        if len(set(counts)) == 1:
            return samples
        assert time.monotonic() < deadline, counts
        time.sleep(0.1)
