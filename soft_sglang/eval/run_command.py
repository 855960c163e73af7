"""``run``: from the command line to a finished folder."""

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from soft_sglang.bundled import MODEL_PATH
from soft_sglang.eval.arms import ARMS, SoftDefaults, added_arm, arms_named, comma_separated
from soft_sglang.eval.client import Client, ClientError, Sampling
from soft_sglang.eval.datasets import BUNDLED, Dataset, from_file, named
from soft_sglang.eval.engine_client import EngineClient
from soft_sglang.eval.errors import EvaluationError
from soft_sglang.eval.folder import begin_or_resume, opened, refuse_other_plan
from soft_sglang.eval.grade_command import ask_judge, judge_of
from soft_sglang.eval.machine import describe_machine
from soft_sglang.eval.marking import grade_all
from soft_sglang.eval.plan import Plan
from soft_sglang.eval.prompts import TEMPLATES
from soft_sglang.eval.records import FORMAT, Run
from soft_sglang.eval.runner import answer_all
from soft_sglang.eval.server_client import ServerClient
from soft_sglang.eval.sweep import swept_arms
from soft_sglang.options import DEFAULT_MAX_TOPK, DEFAULT_THINK_END, MAX_TOPK_LIMIT

_PAPER_LENGTH = 32768
_BUNDLED_LENGTH = 1024


def run(options: argparse.Namespace) -> None:
    """Ask what is missing, then grade.

    Raises:
        EvaluationError: with one line for the user.
    """
    judge = judge_of(options)
    plan = make_plan(options)  # before the model: its mistakes are found in no time
    with opened(options.out):
        refuse_other_plan(options.out, describe_plan(plan))  # likewise
        client = _client(options, plan)
        try:
            if any(arm.policy for arm in plan.arms):
                client.require_soft_thinking()
            _refuse_too_long(plan, client)
            begin_or_resume(options.out, describe(plan, client, dict(options.engine_arg)))
            client.run(answer_all(client, plan, options.out, options.concurrency))
        finally:
            client.close()
        # only now: an Engine that shuts down ends every child of its process
        grade_all(options.out)
        if judge is not None:
            ask_judge(options.out, judge)
    print(f"All answers are in {options.out}.", file=sys.stderr)


def make_plan(options: argparse.Namespace) -> Plan:
    """What the command line asks for.

    Raises:
        EvaluationError: with one line for the user.
    """
    added = [added_arm(*arm) for arm in options.add_arm]
    arms = arms_named(options.arms) + added + swept_arms(options, added)
    _refuse_repeated("arm", [arm.name for arm in arms])
    _check_ranges(options)
    names = comma_separated(options.datasets)
    if not names and not options.data:
        names = [BUNDLED]
    datasets = [named(name) for name in names] + [from_file(path) for path in options.data]
    _refuse_repeated("dataset", [dataset.name for dataset in datasets])
    on_bundled = options.base_url is None and options.model_path in (None, MODEL_PATH)
    length = options.max_new_tokens or (_BUNDLED_LENGTH if on_bundled else _PAPER_LENGTH)
    return Plan(
        datasets=[dataset.limited(options.limit) for dataset in datasets],
        arms=arms,
        samples=options.samples,
        sampling=Sampling(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            min_p=options.min_p,
            max_new_tokens=length,
        ),
        soft_defaults=SoftDefaults(
            max_topk=options.max_topk,
            early_stopping_entropy_threshold=options.early_stopping_entropy_threshold,
            early_stopping_length_threshold=options.early_stopping_length_threshold,
            think_end_str=options.think_end_str,
        ),
        prompts={dataset.name: TEMPLATES[options.prompt or dataset.prompt] for dataset in datasets},
        seed=options.seed,
    )


def describe(plan: Plan, client: Client, engine_args: Mapping[str, Any]) -> Run:
    """The record of a run that begins now."""
    return Run(
        format=FORMAT,
        versions={
            **client.versions,
            "math_verify": version("math-verify"),
            "python": platform.python_version(),
        },
        model=client.model,
        server=client.server,
        engine_args=engine_args,
        soft_thinking={**vars(plan.soft_defaults), "think_end_str": client.think_end},
        **describe_plan(plan),
        machine=describe_machine(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The part of a run's record that does not depend on the model."""
    return {
        "datasets": [_describe_dataset(dataset) for dataset in plan.datasets],
        "samples": plan.samples,
        "arms": [arm.name for arm in plan.arms],
        "added_arms": {arm.name: arm.own for arm in plan.arms if arm.name not in ARMS},
        "sampling": plan.sampling.as_dict(),
        "seed": plan.seed,
        "prompt": plan.prompts,
    }


def _describe_dataset(dataset: Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "path": dataset.path,
        "digest": dataset.digest(),
        "problems": len(dataset.problems),
    }


def _client(options: argparse.Namespace, plan: Plan) -> Client:
    if options.base_url is not None:
        if options.model_path is not None or options.engine_arg:
            raise EvaluationError("--base-url excludes --model-path and --engine-arg")
        return ServerClient(options.base_url, options.api_key, options.model, options.think_end_str)
    if options.model is not None:
        raise EvaluationError("--model names a model on a server; for an Engine give --model-path")
    model_path = options.model_path or MODEL_PATH
    _refuse_missing(model_path)
    return EngineClient.start(
        model_path,
        # of the Engine it is a limit, and SwiReasoning needs one more than a concept's width
        max_topk=min(max(DEFAULT_MAX_TOPK, plan.soft_defaults.max_topk + 1), MAX_TOPK_LIMIT),
        think_end=options.think_end_str or DEFAULT_THINK_END,
        seed=plan.seed,
        engine_args=dict(options.engine_arg),
    )


def _refuse_missing(model_path: str) -> None:
    """A path that is meant as a folder must be one; else the hub would be asked for it."""
    path = Path(model_path)
    if (model_path.startswith((".", "/", "~")) or model_path.count("/") > 1) and not path.exists():
        raise ClientError(f"there is no model at {model_path}")


def _refuse_too_long(plan: Plan, client: Client) -> None:
    length, context = plan.sampling.max_new_tokens, client.context_length
    if context is not None and length >= context:
        raise EvaluationError(
            f"--max-new-tokens must leave room for the prompt in the model's context of {context} "
            f"tokens, got {length}"
        )


def _refuse_repeated(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise EvaluationError(f"the {what} {name!r} is given twice")


def _check_ranges(options: argparse.Namespace) -> None:
    """What SGLang would refuse, by the names of the command line."""
    for flag, value, allowed, ok in (
        ("--temperature", options.temperature, "at least 0", options.temperature >= 0),
        ("--top-p", options.top_p, "above 0, at most 1", 0 < options.top_p <= 1),
        ("--top-k", options.top_k, "at least 1, or -1", options.top_k >= 1 or options.top_k == -1),
        ("--min-p", options.min_p, "from 0 to 1", 0 <= options.min_p <= 1),
        (
            "--early-stopping-entropy-threshold",
            options.early_stopping_entropy_threshold,
            "at least 0",
            options.early_stopping_entropy_threshold >= 0,
        ),
    ):
        if not ok:
            raise EvaluationError(f"{flag} must be {allowed}, got {value}")
