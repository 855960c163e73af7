"""Stages of a pipeline give what one process gives, noise included.

All on one engine: prefills are cut into chunks, and requests are retracted every few steps.
"""

import random
from typing import Any

import pytest
import test_retraction as retraction
import test_thinking_markers as markers
import test_thinking_policies as policies
import varied_requests
from marked_requests import marked_requests
from metric_samples import scrape_processes, total
from oracle import Oracle
from schedule import Company, Visit
from traces import close

import soft_sglang

ENVIRONMENT = {
    "SGLANG_CPU_OMP_THREADS_BIND": "0|1",
    "SGLANG_TEST_RETRACT": "1",
    "SGLANG_TEST_RETRACT_INTERVAL": "13",
}


@pytest.fixture(scope="module")
def oracle(tiny_model):
    return Oracle(tiny_model("llama"))


@pytest.fixture(scope="module")
def expected(house, tiny_model, plain_outputs):
    """What one process gives for the requests of the test of retraction."""
    engine = house.get(tiny_model("llama"))
    return engine.generate(input_ids=retraction.PROMPTS, sampling_params=retraction.SAMPLINGS)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """Folder in which every process keeps its metrics."""
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture
def engine(house, tiny_model, plain_outputs, expected, metrics) -> Any:
    """Two stages; after the others, since one process holds one engine."""
    return house.get(
        tiny_model("llama"),
        {**ENVIRONMENT, "PROMETHEUS_MULTIPROC_DIR": str(metrics)},
        pp_size=2,
        enable_metrics=True,
        chunked_prefill_size=32,
        schedule_conservativeness=0.01,
    )


def test_every_stage_announces_the_plugin(engine):
    infos = engine._scheduler_init_result.scheduler_infos
    assert [info["soft_thinking"] for info in infos] == [soft_sglang.__version__] * 2


def test_requests_of_every_kind(engine, plain_outputs, metrics):
    """And every one is counted once, though all stages see it."""
    before = scrape_processes(metrics)
    varied_requests.check_same(varied_requests.run(engine), plain_outputs)
    after = scrape_processes(metrics)
    soft = [o["meta_info"]["soft_thinking"] for o in plain_outputs if _is_soft(o)]
    for name, count in {
        "requests_total": len(soft),
        "ends_total": len(soft),
        "thinking_steps_total": sum(answer["steps"] for answer in soft),
    }.items():
        name = f"soft_sglang:{name}"
        assert total(after, name) - total(before, name) == count, name


def _is_soft(output: dict[str, Any]) -> bool:
    return "soft_thinking" in output["meta_info"]


def test_retracted_requests_go_on_where_they_were(engine, expected):
    """Every stage resumes them from its own trace: the first the inputs, the last the state."""
    count = len(expected)
    for turn in range(2):
        order = [(i + 2 * turn + 1) % count for i in range(count)]
        outputs = engine.generate(
            input_ids=[retraction.PROMPTS[i] for i in order],
            sampling_params=[retraction.SAMPLINGS[i] for i in order],
        )
        varied_requests.check_same(outputs, [expected[i] for i in order])
        assert sum(output["meta_info"]["num_retractions"] for output in outputs) >= 6


def test_company_and_aborts(engine, plain_outputs):
    """Requests that arrive while others run, and some that leave: a stage behind the other."""
    dice = random.Random(7)
    kinds = range(len(plain_outputs))
    visits = [
        Visit(dice.choice(kinds), dice.randrange(200), dice.choice([None, dice.randrange(1, 40)]))
        for _ in range(24)
    ]
    company = Company(engine, varied_requests.PROMPTS, varied_requests.SAMPLINGS)
    left = 0
    for visit, output in zip(visits, company.run(visits), strict=True):
        alone, ids = plain_outputs[visit.kind], output["output_ids"]
        aborted = output["meta_info"]["finish_reason"]["type"] == "abort"
        left += aborted
        assert aborted or len(ids) == len(alone["output_ids"])
        assert ids == alone["output_ids"][: len(ids)], visit
        soft = alone["meta_info"].get("soft_thinking", {"concepts": []})
        told = min(len(ids), len(soft["concepts"]))
        assert close(output["concepts"], soft["concepts"][:told]), visit
    assert left >= 5
    assert company.most_together > 8


def test_markers_budgets_and_thinking_again(engine, oracle):
    table = [request for request, _ in marked_requests(oracle).values()]
    outputs = markers.generate(engine, table)
    for request, output in zip(table, outputs, strict=True):
        markers.check(output, oracle.run(request))


def test_every_policy(engine, oracle):
    """What a policy remembers and the hidden states it feeds travel too."""
    pairs = policies._long_requests(oracle)
    for turn in range(0, len(pairs), 3):
        order = pairs[turn:] + pairs[:turn]
        outputs = policies._generate(engine, [request for request, _ in order])
        for output, (_, trajectory) in zip(outputs, order, strict=True):
            policies._check(output, trajectory)
        assert sum(output["meta_info"]["num_retractions"] for output in outputs) >= 2


@pytest.mark.parametrize("kind", [1, 3])
def test_a_stream_tells_every_step_once(engine, plain_outputs, kind):
    """With noise to the end, and cut by Cold Stop."""
    chunks = list(
        engine.generate(
            input_ids=varied_requests.PROMPTS[kind],
            sampling_params=varied_requests.SAMPLINGS[kind],
            stream=True,
        )
    )
    answers = [chunk["meta_info"]["soft_thinking"] for chunk in chunks]
    alone = plain_outputs[kind]
    soft = alone["meta_info"]["soft_thinking"]
    assert len(chunks) > 1
    assert chunks[-1]["output_ids"] == alone["output_ids"]
    assert close(
        [concept for answer in answers for concept in answer["concepts"]], soft["concepts"]
    )
    assert (answers[-1]["steps"], answers[-1]["end"]) == (soft["steps"], soft["end"])


@pytest.mark.slow
def test_stages_of_two_ranks_give_what_one_process_gives(house, tiny_model, plain_outputs):
    """The message between stages is cut into parts there, one for each rank."""
    cores = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1|0|1"}
    engine = house.get(tiny_model("llama"), cores, pp_size=2, tp_size=2)
    varied_requests.check_same(varied_requests.run(engine), plain_outputs)
