"""Looks at every model class of the installed SGLang and compares it with what was decided.

Decisions are in ``docs/model-classes.json``: a verdict on each class, and on each function that
uses token ids otherwise than to embed them. Exits with 1 where the installed SGLang has a class or
a function that is not decided. ``--build`` also builds the classes that can be built here.
"""

import argparse
import json
import sys

from soft_sglang.cpu.environment import prepare

prepare()

from support import model_classes  # noqa: E402
from support.model_sources import Sources, installed  # noqa: E402


def built(sources: Sources, names: list[str]) -> dict[str, str]:
    """What each class says that is built small; all that can be if no name is given."""
    from support import small_models
    from support.small_model_configs import CONFIGS

    classes = sources.entry_classes()
    with small_models.surroundings():
        return {
            name: small_models.verdict(name, classes[name])
            for name in names or CONFIGS
            if name in classes
        }


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into docs/models.md")
    parser.add_argument(
        "--accept", action="store_true", help="take the functions of this SGLang as judged"
    )
    parser.add_argument(
        "--build", nargs="*", metavar="CLASS", help="build these classes, or all; prints JSON"
    )
    arguments = parser.parse_args(argv)
    sources, decisions = Sources(installed()), model_classes.Decisions.load()
    if arguments.build is not None:
        print(json.dumps(built(sources, arguments.build), indent=1))
        return 0
    undecided = sorted(set(sources.entry_classes()) - set(decisions.classes))
    found = model_classes.uses_of(sources, decisions)
    if arguments.accept:
        decisions.accept(found)
        decisions.save()
    if arguments.write:
        model_classes.write_table(decisions.table())
    unreviewed = decisions.unreviewed(found)
    for name in undecided:
        print(f"class not decided: {name}")
    for where in unreviewed:
        print(f"uses of token ids not judged: {where}")
    print(f"{len(decisions.classes)} classes and {len(decisions.uses)} functions are decided")
    return 1 if undecided or unreviewed else 0


if __name__ == "__main__":
    sys.exit(main())
