"""DP attention changes no result: ranks attend apart and share the rest of every step.

Two ranks on two cores. SGLang pads their batches and gathers them in every layer; a rank without
requests computes padding. Here requests are also retracted every few steps.
"""

import asyncio
from typing import Any

import pytest
import varied_requests
from plugins.installation import install
from schedule import Company, Visit
from traces import close

import soft_sglang

MODEL = "qwen3"
TWO_RANKS = {
    "SGLANG_CPU_OMP_THREADS_BIND": "0|1",
    "SGLANG_TEST_RETRACT": "1",
    "SGLANG_TEST_RETRACT_INTERVAL": "13",
}
SAMPLINGS = varied_requests.SAMPLINGS
PROMPTS = [[23 + i, 33, 40, 50 + i, 57] * 2 for i in range(len(SAMPLINGS))]
"""As long as each other: SGLang retracts the last of equals."""
SOFT, GUMBEL, DISCRETE = 0, 1, 4
"""Some of the varied requests."""

_POLICY = {"return_concepts": True, "early_stopping_entropy_threshold": 0}
POLICIES = [
    {
        "max_new_tokens": 20,
        "ignore_eos": True,
        "sampling_seed": 3,
        "temperature": 0.8,
        "top_p": 0.95,
        "soft_thinking": {**_POLICY, "policy": policy},
    }
    for policy in ("coconut_tf", "mixture_of_inputs", "swi_reasoning")
]
"""The first one is fed hidden states, which DP attention gathers and pads too."""
SAMPLES = {**SAMPLINGS[GUMBEL], "n": 3, "max_new_tokens": 16}


def _follow_policies(engine: Any) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = engine.generate(input_ids=PROMPTS[:3], sampling_params=POLICIES)
    return outputs


def _sample(engine: Any) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = engine.generate(
        input_ids=PROMPTS[GUMBEL], sampling_params=SAMPLES
    )
    return outputs


@pytest.fixture(scope="module")
def plain(house, tiny_model):
    """What a single process answers, by what it is asked."""
    engine = house.get(tiny_model(MODEL))
    return {
        "kinds": engine.generate(input_ids=PROMPTS, sampling_params=SAMPLINGS),
        "policies": _follow_policies(engine),
        "samples": _sample(engine),
    }


@pytest.fixture(scope="module")
def apart(plain, house, tiny_model, tmp_path_factory):
    """An engine of two ranks that attend apart."""
    with pytest.MonkeyPatch.context() as patch:
        for path in install("pad_torch_native", tmp_path_factory.mktemp("plugin")):
            patch.syspath_prepend(path)
        return house.get(
            tiny_model(MODEL), TWO_RANKS, tp_size=2, dp_size=2, enable_dp_attention=True
        )


@pytest.mark.parametrize("turn", [0, 2, 4])
def test_every_kind_of_request_answers_as_in_one_process(apart, plain, turn):
    """Every kind takes its turn as the last one of its rank, which is retracted."""
    order = [(i + turn) % len(PROMPTS) for i in range(len(PROMPTS))]
    outputs = apart.generate(
        input_ids=[PROMPTS[i] for i in order], sampling_params=[SAMPLINGS[i] for i in order]
    )
    varied_requests.check_same(outputs, [plain["kinds"][i] for i in order])
    assert [output["meta_info"]["dp_rank"] for output in outputs] == [0, 1] * 3
    retractions = [output["meta_info"]["num_retractions"] for output in outputs]
    assert min(retractions[-2:]) >= 2, retractions


def test_policies_and_samples_answer_as_in_one_process(apart, plain):
    varied_requests.check_same(_follow_policies(apart), plain["policies"])
    samples = _sample(apart)
    varied_requests.check_same(samples, plain["samples"])
    assert len({tuple(output["output_ids"]) for output in samples}) == len(samples) == 3
    assert {output["meta_info"]["dp_rank"] for output in samples} == {0, 1}


def test_every_rank_says_that_it_runs_the_plugin(apart):
    states = apart.loop.run_until_complete(apart.tokenizer_manager.get_internal_state())
    assert [state["soft_thinking"] for state in states] == [soft_sglang.__version__] * 2


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("kind", [SOFT, GUMBEL, DISCRETE])
def test_the_other_rank_is_idle(apart, plain, rank, kind):
    output = apart.generate(
        input_ids=PROMPTS[kind], sampling_params=SAMPLINGS[kind], routed_dp_rank=rank
    )
    varied_requests.check_same([output], [plain["kinds"][kind]])
    assert output["meta_info"]["dp_rank"] == rank


@pytest.mark.parametrize("rank", [0, 1])
def test_a_soft_and_a_discrete_rank(apart, plain, rank):
    """Each batch is of one kind; the other's prefills fall into its steps."""

    async def together() -> list[Any]:
        return await asyncio.gather(
            *(
                apart.async_generate(
                    input_ids=PROMPTS[kind], sampling_params=SAMPLINGS[kind], routed_dp_rank=where
                )
                for kind, where in [(GUMBEL, rank), (DISCRETE, 1 - rank), (SOFT, rank)]
            )
        )

    outputs = apart.loop.run_until_complete(together())
    varied_requests.check_same(outputs, [plain["kinds"][k] for k in (GUMBEL, DISCRETE, SOFT)])


VISITS = [
    Visit(kind=i % len(PROMPTS), arrival=7 * i, leaves_after=[None, 5, None, 17][i % 4])
    for i in range(16)
]
"""Some leave early: soft and discrete ones, from batches of either rank."""


def test_streams_of_requests_that_come_and_go(apart, plain):
    outputs = Company(apart, PROMPTS, SAMPLINGS).run(VISITS)
    aborted = 0
    for visit, output in zip(VISITS, outputs, strict=True):
        expected = plain["kinds"][visit.kind]
        ids, left = output["output_ids"], output["meta_info"]["finish_reason"]["type"] == "abort"
        aborted += left
        assert len(ids) == len(expected["output_ids"]) or left
        assert ids == expected["output_ids"][: len(ids)], visit
        want = expected["meta_info"].get("soft_thinking", {}).get("concepts", [])
        assert len(output["concepts"]) == min(len(ids), len(want))
        assert close(output["concepts"], want[: len(output["concepts"])]), visit
    assert aborted >= 4
