"""``python -m soft_sglang.eval``."""

import argparse
import sys
from collections.abc import Callable, Mapping

from soft_sglang.launch_server import leave_source_tree


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: default: the command line's.

    Returns:
        0; 2 after a mistake of the user, which is told in one line; 130 when interrupted.
    """
    leave_source_tree()
    from soft_sglang.eval.arguments import parser
    from soft_sglang.eval.errors import EvaluationError

    options = parser().parse_args(argv)
    try:
        _COMMANDS[options.command](options)
    except EvaluationError as error:
        print(f"soft_sglang.eval: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    from soft_sglang.eval.run_command import run

    run(options)


def _grade(options: argparse.Namespace) -> None:
    from soft_sglang.eval.grade_command import grade

    grade(options)


def _report(options: argparse.Namespace) -> None:
    from soft_sglang.eval.report import write_report

    write_report(options.folders, options.out)


def _list(_options: argparse.Namespace) -> None:
    from soft_sglang.eval.arms import ARMS
    from soft_sglang.eval.datasets import BUNDLED, HUB

    print("datasets")
    for name, source in HUB.items():
        print(f"  {name:<20}{source.path}")
    print(f"  {BUNDLED:<20}the bundled model's held-out problems")
    print("arms")
    for arm in ARMS.values():
        print(f"  {arm.name:<20}{arm.title} ({arm.source})")


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "run": _run,
    "grade": _grade,
    "report": _report,
    "list": _list,
}

if __name__ == "__main__":
    sys.exit(main())
