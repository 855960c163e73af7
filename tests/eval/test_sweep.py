"""Sweeps over Cold Stop's thresholds: the arms, every mistake, and a whole run with its report."""

import json

import pytest
from foreign_server import ENTROPIES, ForeignServer, add_softly

from soft_sglang.eval.__main__ import main
from soft_sglang.eval.arguments import parser
from soft_sglang.eval.arms import SoftDefaults
from soft_sglang.eval.entropy_runs import longest_run
from soft_sglang.eval.errors import EvaluationError
from soft_sglang.eval.records import read_answers, read_run
from soft_sglang.eval.run_command import describe_plan, make_plan

DEFAULTS = SoftDefaults(10, 0.01, 256)


def plan_of(*arguments):
    return make_plan(parser().parse_args(["run", "--arms=cot", "--out=x", *arguments]))


def thresholds(arm):
    request = arm.soft_thinking(DEFAULTS)
    return (
        request["early_stopping_entropy_threshold"],
        request["early_stopping_length_threshold"],
    )


def test_an_arm_for_every_pair():
    plan = plan_of("--sweep-entropy-thresholds=0.05,0.1,0.05", "--sweep-length-thresholds= 8,16")
    cot, *swept = plan.arms
    assert cot.name == "cot"
    assert {arm.name: thresholds(arm) for arm in swept} == {
        "soft_h0.05_l8": (0.05, 8),
        "soft_h0.05_l16": (0.05, 16),
        "soft_h0.1_l8": (0.1, 8),
        "soft_h0.1_l16": (0.1, 16),
    }


def test_what_is_not_swept_is_the_runs():
    plan = plan_of("--sweep-length-thresholds=8", "--early-stopping-entropy-threshold=0.2")
    assert [(arm.name, *thresholds(arm)) for arm in plan.arms[1:]] == [("soft_h0.2_l8", 0.2, 8)]
    plan = plan_of("--sweep-entropy-thresholds=1e-05,1")
    assert [arm.name for arm in plan.arms[1:]] == ["soft_h1e-05_l256", "soft_h1_l256"]


def test_any_policy_is_swept_with_its_own_fields():
    plan = plan_of(
        "--sweep-arms=gumbel,cold_stop_only,selar,k3",
        "--sweep-length-thresholds=8",
        '--add-arm=k3={"max_topk": 3, "early_stopping_entropy_threshold": 0}',
    )
    requests = {arm.name: arm.soft_thinking(DEFAULTS) for arm in plan.arms[2:]}
    shared = {"return_entropies": True, "early_stopping_length_threshold": 8}
    shared |= {"max_topk": 10, "early_stopping_entropy_threshold": 0.01}
    assert requests == {
        "gumbel_h0.01_l8": {**shared, "policy": "soft_thinking", "noise": "gumbel"},
        "cold_stop_only_h0.01_l8": {**shared, "policy": "discrete"},
        "selar_h0.01_l8": {**shared, "policy": "selar"},
        "k3_h0.01_l8": {**shared, "policy": "soft_thinking", "max_topk": 3},
    }


def test_the_record_of_a_run_holds_what_was_swept():
    description = describe_plan(plan_of("--sweep-length-thresholds=8"))
    assert description["arms"] == ["cot", "soft_h0.01_l8"]
    assert description["added_arms"] == {
        "soft_h0.01_l8": {
            "policy": "soft_thinking",
            "early_stopping_entropy_threshold": 0.01,
            "early_stopping_length_threshold": 8,
        }
    }


ENTROPY, LENGTH = "--sweep-entropy-thresholds", "--sweep-length-thresholds"
OFF = "--early-stopping-entropy-threshold=0"
MISTAKES = {
    f"{ENTROPY}=0.1,x": f"{ENTROPY} must be numbers above 0, at most 1e6, separated by commas, got",
    f"{ENTROPY}=0.1,0": f"{ENTROPY} must be numbers above 0",
    f"{ENTROPY}=nan": f"{ENTROPY} must be numbers above 0",
    f"{ENTROPY}=inf": f"{ENTROPY} must be numbers above 0",
    f"{ENTROPY}=,": f"{ENTROPY} must be numbers above 0",
    f"{LENGTH}=8,0": f"{LENGTH} must be whole numbers of at least 1, separated by commas, got '8,",
    f"{LENGTH}=8.5": f"{LENGTH} must be whole numbers of at least 1",
    f"{LENGTH}=": f"{LENGTH} must be whole numbers of at least 1",
    f"{LENGTH}=2147483648": f"{LENGTH} must be whole numbers of at least 1",
    f"{LENGTH}=8 --sweep-arms=cot_stock": "--sweep-arms must be some of cot, cold_stop_only, soft,",
    f"{LENGTH}=8 --sweep-arms=soft,sotf": "separated by commas, got 'soft,sotf'",
    f"{LENGTH}=8 --sweep-arms=": "--sweep-arms must be some of",
    "--sweep-arms=soft": f"--sweep-arms needs {ENTROPY} or {LENGTH}",
    f"{LENGTH}=8 {OFF}": f"{LENGTH} needs an entropy threshold above",
    f"{ENTROPY}=1 {LENGTH}=8 --add-arm=soft_h1_l8={{}}": "the arm 'soft_h1_l8' is given twice",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistakes(arguments):
    with pytest.raises(EvaluationError) as error:
        plan_of(*arguments.split(" "))
    assert MISTAKES[arguments] in str(error.value)


def test_run_resume_and_report(capsys, tmp_path):
    """Against a server with a known thought: what is recorded, asked again, and reported."""
    data, out = tmp_path / "sums.json", tmp_path / "out"
    data.write_text(json.dumps([{"question": f"{i} + 10?", "answer": i + 10} for i in range(3)]))
    with ForeignServer(add_softly, with_plugin=True) as server:
        command = ["run", f"--base-url={server.url}", f"--data={data}", f"--out={out}"]
        command += ["--arms=cot,soft_no_cold_stop", "--sweep-entropy-thresholds=0.05,0.2"]
        sweep = [*command, "--sweep-length-thresholds=2,4"]
        assert main(sweep) == 0
        asked = len(server.requests)
        assert main(sweep) == 0
        assert len(server.requests) == asked
        capsys.readouterr()
        assert main([*command, "--sweep-length-thresholds=2,5"]) == 2
        assert "arms[3]: was 'soft_h0.05_l4', is 'soft_h0.05_l5'" in capsys.readouterr().err

    run = read_run(out)
    swept = ["soft_h0.05_l2", "soft_h0.05_l4", "soft_h0.2_l2", "soft_h0.2_l4"]
    assert run.arms == ["cot", "soft_no_cold_stop", *swept]
    steps = {}
    for answer in read_answers(out):
        told, asked = answer.soft_thinking, answer.request["soft_thinking"]
        assert told["longest_run"] == longest_run(
            answer.entropies, asked["early_stopping_entropy_threshold"]
        )
        steps[answer.arm] = told["steps"]
    # 0.3, 0.01, 0.02, 0.1, 0.04, 0.04, 0.0999, 0.5
    assert steps == {
        **dict.fromkeys(("cot", "soft_no_cold_stop"), len(ENTROPIES)),
        **dict(zip(swept, [3, 8, 3, 5], strict=True)),
    }

    assert main(["report", str(out), f"--out={tmp_path / 'report'}"]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "- arm soft_h0.05_l2: policy soft_thinking, early_stopping_" in text
    for arm, entropy, length, ended in (
        ("soft_h0.05_l2", 0.05, 2, 100),
        ("soft_h0.05_l4", 0.05, 4, 0),
        ("soft_h0.2_l4", 0.2, 4, 100),
    ):
        # all answers have the same tokens: their resamples say nothing
        assert f"| {arm} | {entropy} nats, {length} steps | {ended}.0 | 9.0 [–] |" in text
