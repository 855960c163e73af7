"""The arms: what each asks for, and that nothing else differs between them."""

from dataclasses import asdict

import pytest

from soft_sglang.eval.arms import ARMS, SoftDefaults, added_arm, arms_named
from soft_sglang.eval.client import Sampling
from soft_sglang.eval.datasets import Dataset, Problem
from soft_sglang.eval.errors import EvaluationError
from soft_sglang.eval.plan import Plan, sample_seed
from soft_sglang.options import ServerOptions
from soft_sglang.parameters import read_request

SOFT = SoftDefaults(
    max_topk=5, early_stopping_entropy_threshold=0.02, early_stopping_length_threshold=9
)
COLD = {"early_stopping_entropy_threshold": 0.02, "early_stopping_length_threshold": 9}
EXPECTED = {
    "cot": {"policy": "discrete", "early_stopping_entropy_threshold": 0},
    "cot_stock": False,
    "cot_greedy": False,
    "cold_stop_only": {"policy": "discrete", **COLD},
    "soft": {"policy": "soft_thinking", **COLD},
    "soft_no_cold_stop": {"policy": "soft_thinking", "early_stopping_entropy_threshold": 0},
    "gumbel": {"policy": "soft_thinking", "noise": "gumbel", **COLD},
    "dirichlet": {"policy": "soft_thinking", "noise": "dirichlet", **COLD},
    "average_embedding": {"policy": "average_embedding"},
    "coconut_tf": {"policy": "coconut_tf"},
    "mixture_of_inputs": {"policy": "mixture_of_inputs"},
    "swi_reasoning": {"policy": "swi_reasoning"},
    "selar": {"policy": "selar"},
}
PLAN = Plan(
    datasets=[
        Dataset("a", "a.json", "none", [Problem("0", "q0", "0"), Problem("1", "q1", "1")]),
        Dataset("b", "b.json", "math", [Problem("0", "q", "0")]),
    ],
    arms=list(ARMS.values()),
    samples=3,
    sampling=Sampling(temperature=0.6, top_p=0.95, top_k=30, min_p=0.001, max_new_tokens=100),
    soft_defaults=SOFT,
    prompts={"a": "{question}", "b": "Box it: {question}"},
    seed=0,
)


@pytest.mark.parametrize("name", ARMS)
def test_request(name):
    expected = EXPECTED[name]
    if isinstance(expected, dict):
        expected = {**expected, "max_topk": 5, "return_entropies": True}
    assert ARMS[name].soft_thinking(SOFT) == expected
    assert (read_request(expected, {}, ServerOptions()) is None) == (expected is False)


def test_every_arm_has_the_same_problems_samples_seeds_and_sampling():
    blocks = {}
    for dataset, arm in PLAN.blocks():
        for key, problem in PLAN.keys(dataset, arm):
            question = PLAN.question(arm, key, problem)
            assert question.sampling.temperature == (0 if arm.name == "cot_greedy" else 0.6)
            rest = {**asdict(question), "soft_thinking": None, "key": key[1:]}
            del rest["sampling"]["temperature"]
            blocks.setdefault(arm.name, []).append(rest)
    assert list(blocks) == list(ARMS)
    assert all(block == blocks["cot"] for block in blocks.values())
    assert len(blocks["cot"]) == len({question["seed"] for question in blocks["cot"]}) == 9
    assert [question["message"] for question in blocks["cot"]][::3] == ["q0", "q1", "Box it: q"]


def test_seed_depends_on_everything_and_fits_31_bits():
    base = (0, "a", "1", 0)
    others = [(1, "a", "1", 0), (0, "b", "1", 0), (0, "a", "2", 0), (0, "a", "1", 1)]
    assert len({sample_seed(*name) for name in [base, *others]}) == 5
    assert sample_seed(*base) == sample_seed(*base)
    assert all(0 <= sample_seed(0, "a", "1", i) < 2**31 for i in range(200))


def test_think_end_is_sent_if_given():
    soft = SoftDefaults(5, 0.02, 9, think_end_str="\n\n")
    assert ARMS["soft"].soft_thinking(soft)["think_end_str"] == "\n\n"
    assert "think_end_str" not in ARMS["soft"].soft_thinking(SOFT)


def test_added_arm():
    arm = added_arm("k3", {"policy": "soft_thinking", "max_topk": 3})
    assert arm.soft_thinking(SOFT) == {
        **{"policy": "soft_thinking", "max_topk": 3, "return_entropies": True},
        **COLD,
    }
    late = added_arm("late", {"early_stopping_length_threshold": 100}).soft_thinking(SOFT)
    assert late["early_stopping_length_threshold"] == 100
    selar = added_arm("selar_3", {"policy": "selar", "selar_topk": 3}).soft_thinking(SOFT)
    assert not set(COLD) & set(selar)
    with pytest.raises(EvaluationError, match="the arm 'soft' exists already"):
        added_arm("soft", {})
    for field in ("enabled", "return_entropies", "think_end_str"):
        with pytest.raises(EvaluationError, match=f"the arm 'x': {field} is the same in every arm"):
            added_arm("x", {field: True})


def test_names():
    assert [arm.name for arm in arms_named("soft, cot,soft")] == ["soft", "cot"]
    assert list(ARMS)[:2] == ["cot", "cot_stock"]
    assert [ARMS["cot"], ARMS["cot_stock"], *arms_named("all")[1:]] == list(ARMS.values())
    for names, complaint in (("soft,sotf", "no arm 'sotf'; the arms are cot,"), (",", "no arm is")):
        with pytest.raises(EvaluationError, match=complaint):
            arms_named(names)
