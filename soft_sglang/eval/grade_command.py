"""``grade``, and the judge of ``run``."""

import argparse
import asyncio
from pathlib import Path

from soft_sglang.eval.errors import EvaluationError
from soft_sglang.eval.folder import opened
from soft_sglang.eval.judge import Judge, judge_all
from soft_sglang.eval.marking import grade_all
from soft_sglang.eval.records import read_run


def grade(options: argparse.Namespace) -> None:
    """Grade what is not graded yet, by ``math-verify`` and, if one is given, by a judge.

    Raises:
        EvaluationError: with one line for the user.
    """
    judge = judge_of(options)
    read_run(options.folder)
    with opened(options.folder):
        grade_all(options.folder)
        if judge is not None:
            ask_judge(options.folder, judge)


def judge_of(options: argparse.Namespace) -> Judge | None:
    """The judge that the command line names.

    Raises:
        EvaluationError: it names half of one.
    """
    if (options.judge_url is None) != (options.judge_model is None):
        raise EvaluationError("--judge-url and --judge-model belong together")
    if options.judge_url is None:
        return None
    return Judge(
        url=options.judge_url,
        model=options.judge_model,
        api_key=options.judge_api_key,
        concurrency=options.judge_concurrency,
        max_tokens=options.judge_max_tokens,
    )


def ask_judge(folder: Path, judge: Judge) -> None:
    """Judge the answers of a run."""
    asyncio.run(judge_all(folder, judge))
