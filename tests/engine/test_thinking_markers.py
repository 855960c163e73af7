"""Where thinking begins and ends: markers of several tokens, budgets, thinking again.

Every request equals the oracle's loop, together with discrete ones, and after retractions at every
step of a forced sequence.
"""

import json
from dataclasses import replace
from typing import Any

import pytest
from marked_requests import LONG, marked_requests
from oracle import Oracle, Request, Trajectory
from plugins.installation import install
from tiny_models import EOS
from tolerances import TRACE_WEIGHT
from traces import close

MARGIN = 1e-5
DISCRETE = {"temperature": 0, "max_new_tokens": 48, "ignore_eos": True}


@pytest.fixture(scope="module")
def requests(tiny_model):
    """By name: the request, how its thinking ends, what the oracle says."""
    oracle = Oracle(tiny_model("llama"))
    table = {}
    for name, (request, end) in marked_requests(oracle).items():
        expected = oracle.run(request)
        assert expected.margin > MARGIN, name
        assert EOS not in expected.ids
        assert end in ("", expected.end), name
        table[name] = request, expected
    return table


@pytest.fixture(scope="module")
def discrete(tiny_model):
    oracle = Oracle(tiny_model("llama"))
    return lambda prompt: oracle.greedy(prompt, 48)


def check(output: dict, expected: Trajectory) -> None:
    assert output["output_ids"] == expected.ids
    answer = output["meta_info"]["soft_thinking"]
    assert (answer["end"], answer["steps"]) == (expected.end, len(expected.concepts))
    assert answer["longest_run"] == expected.longest_run
    trace = [[list(pair) for pair in concept] for concept in expected.concepts]
    assert close(answer["concepts"], trace, TRACE_WEIGHT)
    if "positions" in answer:
        assert tuple(answer["positions"]) == expected.positions
    if expected.entropies:
        mean = sum(expected.entropies) / len(expected.entropies)
        assert answer["mean_entropy"] == pytest.approx(mean, abs=1e-4)


def test_requests_of_every_kind(requests):
    """The table covers what it is for."""
    ends = [expected.end for _, expected in requests.values()]
    assert set(ends) == {"think_end", "cold_stop", "budget", "length", "closed"}
    again = [expected for _, expected in requests.values() if len(_thoughts(expected)) > 1]
    assert len(again) >= 3
    forced = requests["cold stop, many tokens"][1]
    assert [concept for concept in forced.concepts if len(concept) == 1][-12:] == [
        [(token, 1.0)] for token in LONG
    ]


def _thoughts(expected: Trajectory) -> list[int]:
    """Where thoughts begin."""
    positions = expected.positions
    return [p for i, p in enumerate(positions) if i == 0 or positions[i - 1] != p - 1]


def test_together(house, tiny_model, requests, discrete):
    engine = house.get(tiny_model("llama"))
    prompt = next(iter(requests.values()))[0].prompt
    samplings = [request.sampling_params() for request, _ in requests.values()]
    outputs = engine.generate(
        input_ids=[prompt] * (len(samplings) + 1), sampling_params=[*samplings, DISCRETE]
    )
    for output, (_, expected) in zip(outputs, requests.values(), strict=False):
        check(output, expected)
    assert outputs[-1]["output_ids"] == discrete(prompt)


def test_one_by_one(house, tiny_model, requests):
    """Alone a batch may need no memory of markers at all."""
    engine = house.get(tiny_model("llama"))
    for request, expected in requests.values():
        output = engine.generate(
            input_ids=request.prompt, sampling_params=request.sampling_params()
        )
        check(output, expected)


@pytest.fixture(scope="module")
def retracting(house, tiny_model, tmp_path_factory):
    """An engine that retracts a request every third step, and the states in which it did."""
    notes = tmp_path_factory.mktemp("notes") / "retractions"
    environment = {
        "SGLANG_TEST_RETRACT": "1",
        "SGLANG_TEST_RETRACT_INTERVAL": "3",
        "RETRACTIONS": str(notes),
    }
    with pytest.MonkeyPatch.context() as patch:
        for path in install("note_retractions", tmp_path_factory.mktemp("plugin")):
            patch.syspath_prepend(path)
        engine = house.get(tiny_model("llama"), environment, schedule_conservativeness=0.01)
        yield engine, lambda: [json.loads(line) for line in notes.read_text().splitlines()]
        house.close()


def generate(engine: Any, requests: list[Request]) -> list[dict]:
    return engine.generate(
        input_ids=[request.prompt for request in requests],
        sampling_params=[request.sampling_params(ignore_eos=False) for request in requests],
    )


def test_retracted(retracting, requests):
    """SGLang retracts the youngest of a batch: the requests take turns to be that."""
    engine, states = retracting
    table = list(requests.values())
    for first in range(0, len(table), 2):
        turn = table[first:] + table[:first]
        for output, (_, expected) in zip(
            generate(engine, [request for request, _ in turn]), turn, strict=True
        ):
            check(output, expected)
    phases = {(state["phase"], state["matched"]) for state in states()}
    assert phases >= {("THINKING", 1), ("THINKING", 2), ("ANSWERING", 1)}


def test_retracted_at_every_step_of_a_forced_sequence(retracting, tiny_model):
    """After none to five steps of thought, all on their way at the same time."""
    engine, states = retracting
    oracle = Oracle(tiny_model("llama"))
    plain = Request([11, 70, 41, 99], steps=30, temperature=0.8, max_topk=6, end=LONG)
    table = [replace(plain, budget=budget) for budget in (0, 1, 2, 3, 4, 5)]
    expected = [oracle.run(request) for request in table]
    for first in range(len(table)):
        outputs = generate(engine, table[first:] + table[:first])
        for output, trajectory in zip(outputs, expected[first:] + expected[:first], strict=True):
            check(output, trajectory)
    assert {state["forced"] for state in states()} >= set(range(len(LONG)))
