"""Command line of ``python -m soft_sglang.eval``."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from soft_sglang.eval.arms import ARMS
from soft_sglang.eval.datasets import BUNDLED, HUB
from soft_sglang.eval.prompts import TEMPLATES

_RAW = argparse.RawDescriptionHelpFormatter


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; the subcommand's name is in ``command``."""
    parser = argparse.ArgumentParser(
        prog="python -m soft_sglang.eval",
        description="Compares ways of thinking on equal terms.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(
        commands.add_parser(
            "run",
            help="ask, or go on asking, and grade",
            description="Asks every arm every problem and grades the answers. "
            "The same command again goes on where it was stopped.",
        )
    )
    _add_grade(
        commands.add_parser(
            "grade",
            help="grade what has no grade, or with a judge",
            description="Grades the answers of a run.",
        )
    )
    report = commands.add_parser("report", help="tables and plots from the raw files")
    report.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a run")
    report.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="is written")
    commands.add_parser(
        "list",
        help="datasets and arms",
        formatter_class=_RAW,
        description="Shows the names of datasets and arms.",
    )
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    what = run.add_argument_group("what is asked")
    what.add_argument(
        "--datasets",
        default="",
        metavar="NAMES",
        help=f"comma-separated: {', '.join([*HUB, BUNDLED])}; default without --data: {BUNDLED}",
    )
    what.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="JSON or JSON lines; may be given several times",
    )
    what.add_argument(
        "--limit",
        type=_positive,
        metavar="N",
        help="problems of each dataset, spread evenly; default: all",
    )
    what.add_argument(
        "--arms", default="all", metavar="NAMES", help=f"comma-separated: {', '.join(ARMS)}, or all"
    )
    what.add_argument(
        "--add-arm",
        type=_added_arm,
        action="append",
        default=[],
        metavar="NAME=JSON",
        help="another arm: fields of soft_thinking, such as "
        'k3=\'{"policy": "soft_thinking", "max_topk": 3}\'',
    )
    what.add_argument(
        "--samples",
        type=_positive,
        default=1,
        metavar="N",
        help="of every problem, in every arm; default 1",
    )
    what.add_argument(
        "--prompt",
        choices=tuple(TEMPLATES),
        help="for all datasets; default: what suits each (math, choice, or none for the bundled)",
    )
    run.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the run")

    model = run.add_argument_group("the model")
    model.add_argument(
        "--model-path", help="for an Engine in this process; default: the bundled model"
    )
    model.add_argument(
        "--engine-arg",
        type=_engine_arg,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of SGLang's Engine, such as tp_size=4; VALUE is JSON or text",
    )
    model.add_argument("--base-url", metavar="URL", help="a running server, instead of an Engine")
    model.add_argument("--model", metavar="NAME", help="its name on the server; default: the first")
    model.add_argument(
        "--api-key",
        default=os.environ.get("OPENAI_API_KEY", "none"),
        help="of the server; default: OPENAI_API_KEY",
    )
    model.add_argument(
        "--concurrency",
        type=_positive,
        default=64,
        metavar="N",
        help="requests at a time; default 64",
    )

    sampling = run.add_argument_group("sampling (defaults: the paper's)")
    sampling.add_argument("--temperature", type=float, default=0.6, help="default 0.6")
    sampling.add_argument("--top-p", type=float, default=0.95, help="default 0.95")
    sampling.add_argument("--top-k", type=int, default=30, help="default 30; -1 is off")
    sampling.add_argument("--min-p", type=float, default=0.001, help="default 0.001")
    sampling.add_argument(
        "--max-new-tokens",
        type=_positive,
        metavar="N",
        help="default 32768, or 1024 for the bundled model",
    )
    sampling.add_argument("--seed", type=int, default=0, help="default 0")

    soft = run.add_argument_group("soft thinking (defaults: the paper's)")
    soft.add_argument("--max-topk", type=_positive, default=10, help="default 10")
    soft.add_argument(
        "--early-stopping-entropy-threshold",
        type=float,
        default=0.01,
        metavar="NATS",
        help="of Cold Stop; default 0.01",
    )
    soft.add_argument(
        "--early-stopping-length-threshold",
        type=_positive,
        default=256,
        metavar="STEPS",
        help="of Cold Stop; default 256",
    )
    soft.add_argument(
        "--think-end-str", help="what ends thinking; default: the server's, else </think>"
    )
    _add_sweep(run)
    _add_judge(run)


def _add_sweep(run: argparse.ArgumentParser) -> None:
    sweep = run.add_argument_group(
        "a sweep over Cold Stop's thresholds: an arm for each pair of them, beside those of --arms"
    )
    sweep.add_argument(
        "--sweep-entropy-thresholds",
        metavar="NATS",
        help="comma-separated, such as 0.01,0.05,0.1; default in a sweep: the run's",
    )
    sweep.add_argument(
        "--sweep-length-thresholds",
        metavar="STEPS",
        help="comma-separated, such as 8,16,32; default in a sweep: the run's",
    )
    sweep.add_argument(
        "--sweep-arms",
        metavar="NAMES",
        help="comma-separated, what is swept, added arms included; default: soft",
    )


def _add_grade(grade: argparse.ArgumentParser) -> None:
    grade.add_argument("folder", type=Path, metavar="FOLDER", help="of a run")
    _add_judge(grade)


def _add_judge(command: argparse.ArgumentParser) -> None:
    judge = command.add_argument_group("a judge, beside math-verify")
    judge.add_argument("--judge-url", metavar="URL", help="with OpenAI's interface")
    judge.add_argument("--judge-model", metavar="NAME", help="its name there")
    judge.add_argument(
        "--judge-api-key",
        default=os.environ.get("JUDGE_API_KEY", "none"),
        help="default: JUDGE_API_KEY",
    )
    judge.add_argument("--judge-concurrency", type=_positive, default=32, metavar="N")
    judge.add_argument("--judge-max-tokens", type=_positive, default=4096, metavar="N")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive number"  # argparse names the type in its message


def _added_arm(text: str) -> tuple[str, dict[str, Any]]:
    name, equals, value = text.partition("=")
    fields = json.loads(value)
    if not equals or not name.isidentifier() or not isinstance(fields, dict):
        raise ValueError
    return name, fields


_added_arm.__name__ = "NAME=JSON"


def _engine_arg(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


_engine_arg.__name__ = "NAME=VALUE"
