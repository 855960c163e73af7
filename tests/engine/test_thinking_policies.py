"""Thinking policies in the running engine: against a Hugging Face loop, and in bad company."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from one_thread import one_thread  # noqa: F401
from oracle import Oracle, Request, Trajectory
from plugins.installation import install
from policy_oracle import GREEDY, GuidedRequest, Sampling, run
from sglang.srt.plugins import load_plugins
from tolerances import TRACE_WEIGHT

from soft_sglang.kernels.noise import gumbel

MARGIN = 1e-6
"""Of every decision of the oracle; the engine is right to 1e-7."""
PROMPTS = [[17, 42, 99, 5, 64], [200, 31], [77, 78, 79, 80, 81, 82, 83, 84, 85], [5] * 20]
PAPER = Sampling(0.6, 30, 0.95, 0.001)
WARM = Sampling(0.9)
SEED = 1234
SEEDS = {"llama": 200, "gemma3": 800, "granite": 0}
"""Chosen so that no decision is a near tie."""


class Counting(NamedTuple):
    """Where the plugin is that counts reads on the host, and what it writes."""

    paths: list[str]
    file: Path


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    load_plugins()  # this process has its plugins: only the engine's get the counting one
    folder = tmp_path_factory.mktemp("plugin")
    return Counting(install("count_host_reads", folder), folder / "reads.jsonl")


@pytest.fixture
def engine(house, tiny_model, counting, monkeypatch):
    """Can return hidden states, and counts reads on the host."""
    for path in counting.paths:
        monkeypatch.syspath_prepend(path)  # children get the path of their parent
    return house.get(
        tiny_model("llama"), {"HOST_READS": str(counting.file)}, enable_return_hidden_states=True
    )


@pytest.fixture(scope="module")
def oracle(tiny_model):
    return Oracle(tiny_model("llama"))


# Against the oracle.


COLD = {"entropy_threshold": 6.0}
"""Every step counts: 6 nats are more than the vocabulary has."""
_SETS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("discrete", {}, {"sampling": WARM}),
    ("discrete", {}, {"sampling": PAPER}),
    ("discrete", {}, {"sampling": GREEDY}),
    ("discrete", {}, {"sampling": Sampling(1.2, 20, 0.7), "length_threshold": 9, **COLD}),
    ("average_embedding", {}, {"max_topk": 5}),
    ("average_embedding", {}, {"sampling": Sampling(0.8, 12, 0.6, 0.05), "max_topk": 8}),
    ("average_embedding", {}, {"length_threshold": 12, **COLD}),
    ("coconut_tf", {}, {"prompt": PROMPTS[0]}),
    ("coconut_tf", {}, {"sampling": PAPER, "length_threshold": 11, **COLD}),
    ("mixture_of_inputs", {}, {"sampling": WARM}),
    ("mixture_of_inputs", {"moi_beta": 0}, {"sampling": PAPER, "max_topk": 20}),
    (
        "mixture_of_inputs",
        {"moi_beta": 2},
        {"max_topk": 3, "length_threshold": 8, "answer": Sampling(0.7, 20, 0.9), **COLD},
    ),
    ("swi_reasoning", {"swi_window_size": 2, "swi_alpha": 0.5}, {"sampling": WARM}),
    ("swi_reasoning", {"swi_window_size": 1, "swi_beta": 0.3}, {"max_topk": 3}),
    (
        "swi_reasoning",
        {"swi_window_size": 1, "swi_max_switch_count": 2},
        {"sampling": PAPER, "max_topk": 20},
    ),
    ("swi_reasoning", {}, {"length_threshold": 13, **COLD}),
    ("selar", {}, {"sampling": PAPER}),
    ("selar", {"selar_entropy_threshold": 0.95, "selar_topk": 2}, {"sampling": WARM}),
    ("selar", {"selar_contrastive_weight": 3, "selar_topk": 8}, {"sampling": WARM}),
    ("selar", {"selar_contrastive_weight": 0}, {"length_threshold": 10, **COLD}),
    ("discrete", {}, {"sampling": WARM, "budget": 5, "end": (200, 201, 202)}),
    ("average_embedding", {}, {"max_topk": 5, "budget": 0}),
    ("coconut_tf", {}, {"budget": 7, "end": (200, 201)}),
    ("mixture_of_inputs", {}, {"sampling": WARM, "budget": 6, "cold_stop": (210, 211, 3)}),
    ("swi_reasoning", {"swi_window_size": 2}, {"sampling": WARM, "budget": 8}),
    ("selar", {}, {"sampling": PAPER, "budget": 3, "end": (200, 201)}),
]
"""Policy, its own parameters, the others."""
GUIDED = [
    GuidedRequest(
        policy,
        **{"prompt": PROMPTS[number % len(PROMPTS)], **more},
        steps=20 + number % 4 * 2,
        seed=SEED + number,
        parameters=parameters,
    )
    for number, (policy, parameters, more) in enumerate(_SETS)
]


def _with_natural_end(oracle: Oracle, request: GuidedRequest) -> GuidedRequest:
    """The same with a think-end token that it emits by itself."""
    request = replace(request, answer=PAPER if request.policy == "mixture_of_inputs" else GREEDY)
    emitted = run(oracle.model, request).ids
    for token in emitted[3:-6]:
        ending = replace(request, think_end=token)
        trajectory = run(oracle.model, ending)
        if trajectory.end == "think_end" and len(trajectory.concepts) > 3:
            return ending
    raise AssertionError(f"{request} never ends by itself")


def _requests(oracle: Oracle, seed: int) -> list[GuidedRequest]:
    requests = [replace(request, seed=request.seed + seed) for request in GUIDED]
    by_policy = {request.policy: request for request in reversed(requests)}
    return requests + [_with_natural_end(oracle, request) for request in by_policy.values()]


def _noise(step: int, ids: torch.Tensor) -> torch.Tensor:
    return gumbel(torch.tensor([SEED]), torch.tensor([step]), ids[None])[0].double()


SOFT = [
    Request(PROMPTS[0], steps=24, temperature=0.8, max_topk=6),
    Request(PROMPTS[3], steps=24, temperature=0.9, top_p=0.8, max_topk=32, gumbel=_noise),
]
DISCRETE = {"temperature": 0, "max_new_tokens": 24, "ignore_eos": True}


def _check(output: dict, expected: Trajectory) -> None:
    """Check one answer of a policy against the oracle, or against another answer."""
    assert output["output_ids"] == expected.ids
    answer = output["meta_info"]["soft_thinking"]
    assert answer["end"] == expected.end
    assert answer["steps"] == len(expected.concepts) == len(answer["concepts"])
    assert answer["entropies"] == pytest.approx(expected.entropies, **TRACE_WEIGHT)
    mean = sum(expected.entropies) / len(expected.entropies)
    assert answer["mean_entropy"] == pytest.approx(mean, **TRACE_WEIGHT)
    for got, want, token in zip(answer["concepts"], expected.concepts, expected.ids, strict=False):
        assert (got == []) == (want == [])
        weights, exact = dict(got), dict(want)
        assert len(weights) == len(got) and 0 not in weights.values()
        for i in weights.keys() | exact.keys():
            assert weights.get(i, 0.0) == pytest.approx(exact.get(i, 0.0), **TRACE_WEIGHT)
        assert token not in weights or got[0][0] == token
        others = [abs(weight) for i, weight in got if i != token]
        assert others == sorted(others, reverse=True)


def _as_trajectory(output: dict) -> Trajectory:
    answer = output["meta_info"]["soft_thinking"]
    concepts = [[(i, w) for i, w in concept] for concept in answer["concepts"]]
    return Trajectory(output["output_ids"], concepts, answer["entropies"], answer["end"], 1.0)


def _check_company(outputs: Sequence[dict], oracle: Oracle) -> None:
    """Soft thinking and a discrete request, in a batch with all policies."""
    for output, request in zip(outputs, SOFT, strict=False):
        expected = oracle.run(request)
        assert output["output_ids"] == expected.ids
        for got, want in zip(
            output["meta_info"]["soft_thinking"]["concepts"], expected.concepts, strict=True
        ):
            assert dict(got) == pytest.approx(dict(want), **TRACE_WEIGHT)
    assert outputs[-1]["output_ids"] == oracle.greedy(PROMPTS[1], 24)
    assert "soft_thinking" not in outputs[-1]["meta_info"]


def _equals_the_oracle(engine: Any, oracle: Oracle, seed: int) -> None:
    assert not engine.server_args.disable_overlap_schedule
    requests = _requests(oracle, seed)
    expected = [run(oracle.model, request) for request in requests]
    _check_variety(requests, expected)
    assert min(trajectory.margin for trajectory in expected) > MARGIN, "ambiguous data"
    everything = [request.sampling_params() for request in requests]
    everything += [request.sampling_params(sampling_seed=SEED) for request in SOFT]
    outputs = engine.generate(
        input_ids=[request.prompt for request in (*requests, *SOFT)] + [PROMPTS[1]],
        sampling_params=[*everything, DISCRETE],
    )
    for output, trajectory in zip(outputs, expected, strict=False):
        _check(output, trajectory)
    _check_company(outputs[len(requests) :], oracle)


def _check_variety(requests: Sequence[GuidedRequest], expected: Sequence[Trajectory]) -> None:
    """The data has what it is there for."""
    ends, sizes, tokens = (defaultdict(set) for _ in range(3))
    negative = set()
    for request, trajectory in zip(requests, expected, strict=True):
        ends[request.policy].add(trajectory.end)
        if trajectory.end != "budget":  # which feeds tokens alone
            sizes[request.policy] |= {min(len(c), 2) for c in trajectory.concepts[:-1]}
        if any(w < 0 for concept in trajectory.concepts for _, w in concept):
            negative.add(request.policy)
        tokens[request.policy] |= set(trajectory.ids)
    every = {"length", "think_end", "cold_stop", "budget"}
    assert all(found == every for found in ends.values())
    assert sizes == {
        "discrete": {1},
        "average_embedding": {2},
        "coconut_tf": {0},
        "mixture_of_inputs": {2},
        "swi_reasoning": {1, 2},
        "selar": {1, 2},
    }
    assert negative == {"selar"}
    assert min(map(len, tokens.values())) > 5


def test_every_policy_equals_its_oracle(engine, oracle):
    """All in one batch with soft thinking, Gumbel noise and a discrete request."""
    _equals_the_oracle(engine, oracle, SEEDS["llama"])


ONE_EACH = {request.policy: request for request in reversed(GUIDED)}
"""A request under every policy."""


def _generate(engine: Any, requests: Sequence[GuidedRequest]) -> list[dict]:
    return engine.generate(
        input_ids=[request.prompt for request in requests],
        sampling_params=[request.sampling_params() for request in requests],
    )


def test_alone_it_is_the_same(engine, oracle):
    for request in _requests(oracle, SEEDS["llama"])[::5]:
        _check(_generate(engine, [request])[0], run(oracle.model, request))


def test_a_stream_tells_every_step_once(engine):
    request = ONE_EACH["swi_reasoning"]
    (whole,) = _generate(engine, [request])
    chunks = list(
        engine.generate(
            input_ids=request.prompt, sampling_params=request.sampling_params(), stream=True
        )
    )
    answers = [chunk["meta_info"]["soft_thinking"] for chunk in chunks]
    together = {
        **answers[-1],
        "concepts": [concept for answer in answers for concept in answer["concepts"]],
        "entropies": [entropy for answer in answers for entropy in answer["entropies"]],
    }
    last = {**chunks[-1], "meta_info": {"soft_thinking": together}}
    assert len(chunks) > 1
    _check({**last, "output_ids": whole["output_ids"]}, _as_trajectory(whole))


def test_what_was_not_asked_for_is_not_told(engine):
    sampling = ONE_EACH["selar"].sampling_params()
    sampling["soft_thinking"] = {"policy": "selar", "return_entropies": True}
    answer = engine.generate(input_ids=[5, 6, 7], sampling_params=sampling)["meta_info"]
    summary = {"steps", "end", "mean_entropy", "longest_run"}
    assert answer["soft_thinking"].keys() == summary | {"entropies"}


# Slots, hidden states, the prefix cache.


def test_discrete_requests_in_the_slots_of_hidden_states(engine, oracle):
    """Plain embeddings, also where the former owner was stopped while it was fed hidden states."""
    coconut = [replace(ONE_EACH["coconut_tf"], steps=6)] * 12
    for _ in range(2):
        _generate(engine, coconut)
        prompts = [[30 + i, 40, 50] for i in range(12)]
        outputs = engine.generate(
            input_ids=prompts, sampling_params=[{**DISCRETE, "max_new_tokens": 8}] * 12
        )
        for prompt, output in zip(prompts, outputs, strict=True):
            assert output["output_ids"] == oracle.greedy(prompt, 8)


@pytest.mark.parametrize("wanted", [True, "last"])
def test_hidden_states_go_to_those_who_ask(engine, oracle, wanted):
    """A discrete request and a coconut request ask beside coconut requests that do not."""
    number = 160 + (wanted is True)  # nothing of the prompts is cached: states of all tokens
    prompt = [number, 61, 62, 63, 64, 65]
    thinkers = [
        replace(ONE_EACH["coconut_tf"], prompt=[number + i] * i, steps=8) for i in (2, 9, 5)
    ]
    outputs = engine.generate(
        input_ids=[thinkers[0].prompt, prompt, *(other.prompt for other in thinkers[1:])],
        sampling_params=[
            thinkers[0].sampling_params(),
            {**DISCRETE, "max_new_tokens": 6},
            *(other.sampling_params() for other in thinkers[1:]),
        ],
        return_hidden_states=[False, wanted, False, wanted],
    )
    told = ["hidden_states" in output["meta_info"] for output in outputs]
    assert told == [False, True, False, True]
    for output, thinker in zip((outputs[0], *outputs[2:]), thinkers, strict=True):
        _check(output, run(oracle.model, thinker))

    ids, states = outputs[1]["output_ids"], outputs[1]["meta_info"]["hidden_states"]
    assert ids == oracle.greedy(prompt, 6)
    with torch.no_grad():
        exact = oracle.model(torch.tensor([prompt + ids[:-1]]), output_hidden_states=True)
    expected = exact.hidden_states[-1][0]
    if wanted == "last":
        got = torch.tensor(states).view(1, -1)
    else:
        got = torch.cat([torch.tensor(step).view(-1, expected.shape[-1]) for step in states])
    torch.testing.assert_close(got, expected[-len(got) :], rtol=1e-4, atol=1e-4)
    assert len(got) == (1 if wanted == "last" else len(expected))


def test_coconut_alone_leaks_no_hidden_states(engine, oracle):
    coconut = ONE_EACH["coconut_tf"]
    (output,) = _generate(engine, [coconut])
    assert "hidden_states" not in output["meta_info"]
    _check(output, run(oracle.model, coconut))


@pytest.mark.parametrize("policy", ONE_EACH)
def test_nobody_finds_what_a_policy_computed(engine, oracle, policy):
    length, number = 40, list(ONE_EACH).index(policy)
    prompt = [150 + number, *range(20, 19 + length)]
    request = replace(ONE_EACH[policy], prompt=prompt, sampling=WARM, steps=12)
    (output,) = _generate(engine, [request])
    follow_up = prompt + output["output_ids"] + [7, 8, 9]
    after = engine.generate(input_ids=follow_up, sampling_params={**DISCRETE, "max_new_tokens": 8})
    assert after["output_ids"] == oracle.greedy(follow_up, 8)
    assert after["meta_info"]["cached_tokens"] == length
    (again,) = _generate(engine, [request])
    assert again["meta_info"]["cached_tokens"] == length - 1
    _check(again, _as_trajectory(output))


# The host.


def test_guided_steps_read_no_more_than_discrete_ones(engine, counting):
    guided = [replace(request, steps=16) for request in ONE_EACH.values()]
    guided += [replace(guided[2], length_threshold=5, **COLD)]

    def reads(rows: Sequence[GuidedRequest | None]) -> set[str]:
        """Of decode steps with all of the rows."""
        before = len(counting.file.read_text().splitlines())
        samplings = [
            {"temperature": 0.8, "max_new_tokens": 16, "ignore_eos": True}
            if row is None
            else row.sampling_params()
            for row in rows
        ]
        engine.generate(input_ids=[[5, 6, 7]] * len(rows), sampling_params=samplings)
        steps = [json.loads(line) for line in counting.file.read_text().splitlines()[before:]]
        soft = sum(row is not None for row in rows)
        found = [step for step in steps if (step["rows"], step["soft"]) == (len(rows), soft)]
        assert len(found) >= 5
        return {json.dumps(step["reads"], sort_keys=True) for step in found}

    discrete = reads([None] * len(guided))
    assert any(json.loads(found) for found in discrete), "the counter counts nothing"
    assert reads(guided) == discrete
    assert reads([*guided[:4], *[None] * (len(guided) - 4)]) == discrete
    alone = reads([None])
    for request in guided:
        assert reads([request]) == alone, request.policy


# Errors.

ERRORS = [
    ({"policy": "thoughtful"}, r"soft_thinking\.policy must be one of 'soft_thinking', 'discrete'"),
    ({"policy": "selar", "moi_beta": 1}, r"moi_beta belongs to the policy 'mixture_of_inputs'"),
    ({"swi_alpha": 0.5}, r"swi_alpha belongs to the policy 'swi_reasoning'"),
    ({"policy": "coconut_tf", "noise": "gumbel"}, r"noise must be 'none' under .*'coconut_tf'"),
    ({"policy": "swi_reasoning", "swi_beta": 1.5}, r"swi_beta must be a number from 0 to 1"),
    (
        {"policy": "swi_reasoning", "swi_alpha": 0.5, "swi_think_start_str": "w5 w6"},
        r"swi_think_start_str must be one token of the vocabulary, but 'w5 w6' is",
    ),
    ({"policy": "swi_reasoning", "max_topk": 32}, r"mix 33 tokens .*--max-topk is 32"),
    ({"policy": "selar", "selar_topk": 32}, r"mix 33 tokens .*--max-topk is 32"),
    ({"policy": "selar", "selar_topk": 1}, r"selar_topk must be an integer from 2"),
]


@pytest.mark.parametrize(("soft", "message"), ERRORS)
def test_errors_name_the_field(engine, soft, message):
    with pytest.raises(ValueError, match=message):
        engine.generate(input_ids=[5, 6], sampling_params={**DISCRETE, "soft_thinking": soft})


def test_the_engine_lives_on(engine, oracle):
    """And a think-start string is only looked up where it is mixed in."""
    request = replace(
        ONE_EACH["swi_reasoning"],
        parameters={"swi_window_size": 1, "swi_think_start_str": "w5 w6"},
    )
    _check(_generate(engine, [request])[0], run(oracle.model, request))


# Other engines.


@pytest.mark.parametrize(
    "architecture",
    ["gemma3", pytest.param("granite", marks=pytest.mark.slow)],
)
def test_every_policy_equals_its_oracle_on_scaled_embeddings(house, tiny_model, architecture):
    """Scaled by their own module, with a tied head, or after it: then a hidden state is too."""
    model = tiny_model(architecture)
    engine = house.get(model, max_total_tokens=4096)
    _equals_the_oracle(engine, Oracle(model), SEEDS[architecture])


LONG = 36
AGREED = ("coconut_tf", "mixture_of_inputs", "swi_reasoning")
"""Policies with more to agree on than tokens and weights."""
RETRACT = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "7"}


def _long_requests(oracle: Oracle) -> list[tuple[GuidedRequest, Trajectory]]:
    """Every policy in the middle of its thinking; Mixture of Inputs also in its answer."""
    changes: dict[str, dict[str, Any]] = {
        "mixture_of_inputs": {"length_threshold": 12, "answer": Sampling(0.7, 20, 0.9), **COLD},
        "swi_reasoning": {"parameters": {"swi_window_size": 1, "swi_alpha": 0.5}},
    }
    requests = [
        replace(
            request,
            prompt=[20 + i, 30, 40, 50 + i, 60] * 4,
            sampling=WARM,
            steps=LONG,
            **changes.get(policy, {}),
        )
        for i, (policy, request) in enumerate(ONE_EACH.items())
    ]
    expected = [run(oracle.model, request) for request in requests]
    assert min(trajectory.margin for trajectory in expected) > MARGIN, "ambiguous data"
    return list(zip(requests, expected, strict=True))


def test_retracted_requests_go_on_where_they_were(house, tiny_model, oracle):
    """With the prefill cut into chunks, through the prompt and through what was fed."""
    engine = house.get(
        tiny_model("llama"), RETRACT, schedule_conservativeness=0.01, chunked_prefill_size=32
    )
    pairs = _long_requests(oracle)
    # SGLang retracts the last of equals: each policy takes its turn there
    for turn in range(len(pairs)):
        order = [pairs[turn - 2], pairs[turn - 1], pairs[turn]]
        outputs = _generate(engine, [request for request, _ in order])
        assert outputs[-1]["meta_info"]["num_retractions"] >= 3
        for output, (_, trajectory) in zip(outputs, order, strict=True):
            _check(output, trajectory)


@pytest.mark.slow
def test_two_tensor_parallel_ranks_give_what_one_gives(house, tiny_model, oracle):
    """Beside a grammar at first, where SGLang makes the ranks agree on every step."""
    engine = house.get(tiny_model("llama"), {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}, tp_size=2)
    pairs = [pair for pair in _long_requests(oracle) if pair[0].policy in AGREED]
    regex = {**DISCRETE, "max_new_tokens": 12, "regex": "(w[0-9]+)+"}
    outputs = engine.generate(
        input_ids=[request.prompt for request, _ in pairs] + [[5, 6]],
        sampling_params=[request.sampling_params() for request, _ in pairs] + [regex],
    )
    assert len(outputs[-1]["output_ids"]) == 12
    for output, (_, trajectory) in zip(outputs, pairs, strict=False):
        _check(output, trajectory)
