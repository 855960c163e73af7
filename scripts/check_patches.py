"""Lists the patches and tells where SGLang differs from the source that they were reviewed against.

    check_patches.py                       # the records, against the installed SGLang
    check_patches.py --version 0.5.24      # against any release, with diffs; nothing is installed
    check_patches.py --update [0.5.24]     # after the review of each hook: note the sources
    check_patches.py --history 10          # how often each target changed, as Markdown

The state of a target is ``same``, ``changed``, ``gone``, ``new`` (it was never reviewed), or ``not
for this version``. A version without a review of its own is compared with the newest reviewed one
before it. Exits with 1 if a target is changed, gone or new. Wheels are kept in
``build/sglang-wheels``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.version import Version

sys.path.insert(0, str(Path(__file__).parent))  # which PYTHONSAFEPATH leaves out

from drift import wheels
from drift.comparison import Compared, compare, summary
from drift.history import history_of, table
from drift.review import Reviews
from drift.source import source_of

from soft_sglang.compatibility import installed_sglang
from soft_sglang.cpu.environment import prepare

prepare()

from soft_sglang.patches.plugin import every_patch  # noqa: E402


def check(version: str, reviews: Reviews) -> int:
    """Print the records and their states; returns the exit code."""
    compared = compare(every_patch(), wheels.tree_of(version), version, reviews)
    for each in compared:
        print(each.record())
    return _conclude(compared, reviews, version)


def report(version: str, reviews: Reviews) -> int:
    """Print what a version changed, with the records and the diffs of what is to be reviewed."""
    compared = compare(every_patch(), wheels.tree_of(version), version, reviews)
    for each in compared:
        print(each.record() if each.to_review else each.headline())
        if each.state == "changed":
            base = reviews.base_of(version)
            # where a version differs from its own review, its installed files were edited
            reviewed = wheels.wheel_tree(base) if base == version else wheels.tree_of(base)
            print(each.diff(reviewed, base, version))
    return _conclude(compared, reviews, version)


def _conclude(compared: Sequence[Compared], reviews: Reviews, version: str) -> int:
    print(summary(compared, reviews.base_of(version), version))
    return int(any(each.to_review for each in compared))


def update(version: str, reviews: Reviews) -> int:
    """Note the sources of one version as reviewed, unless a target is gone."""
    compared = compare(every_patch(), wheels.tree_of(version), version, reviews)
    gone = [each.patch.target for each in compared if each.state == "gone"]
    if gone:
        print(f"nothing is noted, SGLang {version} does not have: {', '.join(gone)}")
        return 1
    sources = [(each.patch.target, each.source) for each in compared if each.source is not None]
    reviews.record(version, sources)
    print(f"noted {len(sources)} sources of SGLang {version} in {reviews.file}")
    return 0


def history(count: int, more_targets: Sequence[str]) -> int:
    """Print how often the targets changed in the newest releases."""
    versions = wheels.releases()[-count - 1 :]
    trees = [wheels.wheel_tree(version) for version in versions]
    targets = dict.fromkeys([*(patch.target for patch in every_patch()), *more_targets])
    # by release: one wheel's modules at a time are parsed
    by_release = [[source_of(tree, target) for target in targets] for tree in trees]
    by_target = zip(targets, zip(*by_release, strict=True), strict=True)
    print(table([history_of(target, sources) for target, sources in by_target], versions[1:]))
    return 0


def release(text: str) -> str:
    """A version as SGLang's wheels spell it."""
    return str(Version(text))


def count(text: str) -> int:
    """A number of releases."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--version", type=release, help="check this release, with diffs")
    what.add_argument(
        "--update",
        type=release,
        nargs="?",
        const=installed_sglang(),
        metavar="VERSION",
        help="note the sources of this release as reviewed, default: of the installed one",
    )
    what.add_argument(
        "--history",
        type=count,
        nargs="?",
        const=10,
        metavar="N",
        help="count changes over the newest releases, default: 10",
    )
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="TARGET", help="more functions for --history"
    )
    arguments = parser.parse_args(argv)
    if arguments.also and not arguments.history:
        parser.error("--also needs --history")
    if arguments.history:
        return history(arguments.history, arguments.also)
    reviews = Reviews()
    if arguments.update:
        return update(arguments.update, reviews)
    if arguments.version:
        return report(arguments.version, reviews)
    return check(installed_sglang() or parser.error("SGLang is not installed"), reviews)


if __name__ == "__main__":
    sys.exit(main())
