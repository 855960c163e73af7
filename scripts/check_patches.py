"""Lists the patches and reports where the installed SGLang differs from what they were written for.

Exits with 1 if a target has drifted or is gone. ``--update`` writes the current fingerprints into
the records, after the hooks were reviewed against the new source.
"""

import argparse
import sys
from pathlib import Path

from soft_sglang.cpu.environment import prepare

prepare()

from soft_sglang.patches.plugin import all_patches  # noqa: E402
from soft_sglang.patches.record import Patch, fingerprint_of  # noqa: E402


def state_of(patch: Patch) -> str:
    """``same``, ``drifted`` or ``gone``."""
    try:
        return "same" if fingerprint_of(patch.target) == patch.fingerprint else "drifted"
    except (ImportError, AttributeError):
        return "gone"


def describe(patch: Patch) -> str:
    """The record as text."""
    lines = [f"{patch.target}  [{patch.when.value}, {state_of(patch)}]"]
    lines += [f"  {name:9}{getattr(patch, name)}" for name in ("why", "how", "upstream")]
    return "\n".join(lines)


def update(patch: Patch) -> None:
    """Write the current fingerprint into the source of a record."""
    path = Path(patch.hook.__code__.co_filename)
    lines = path.read_text().splitlines(keepends=True)
    line = patch.hook.__code__.co_firstlineno - 1
    while not lines[line].lstrip().startswith("fingerprint="):
        line += 1
    lines[line] = f'    fingerprint="{fingerprint_of(patch.target)}",\n'
    path.write_text("".join(lines))


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="accept the installed source")
    arguments = parser.parse_args(argv)
    patches = all_patches()
    if arguments.update:
        for patch in patches:
            update(patch)
        return 0
    for patch in patches:
        print(describe(patch))
    changed = [patch.target for patch in patches if state_of(patch) != "same"]
    print(f"{len(patches)} patches, {len(changed)} drifted or gone")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
