"""The patches against one version of SGLang."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from drift.review import Reviews
from drift.source import Tree, source_of
from soft_sglang.patches.record import Patch


@dataclass(frozen=True)
class Compared:
    """A patch and what became of its target."""

    patch: Patch
    state: str
    """See :meth:`~drift.review.Reviews.state_of`; or ``not for this version``."""
    source: str | None

    @property
    def to_review(self) -> bool:
        """Whether somebody has to look at the hook before this version is supported."""
        return self.state in ("changed", "gone", "new")

    def headline(self) -> str:
        """The target and its state."""
        return f"{self.patch.target}  [{self.patch.when.value}, {self.state}]"

    def record(self) -> str:
        """The target, its state and what the record of the patch says."""
        lines = [f"  {name:9}{getattr(self.patch, name)}" for name in ("why", "how", "upstream")]
        return "\n".join([self.headline(), *lines])

    def diff(self, reviewed: Tree, base: str, version: str) -> str:
        """From the source in the reviewed version's files to this one's."""
        lines = difflib.unified_diff(
            (source_of(reviewed, self.patch.target) or "").splitlines(keepends=True),
            (self.source or "").splitlines(keepends=True),
            f"SGLang {base}",
            f"SGLang {version}",
        )
        return "".join(lines)


def compare(patches: Sequence[Patch], tree: Tree, version: str, reviews: Reviews) -> list[Compared]:
    """All patches, for any version, against the files of one version."""
    base = reviews.base_of(version)
    result = []
    for patch in patches:
        if patch.is_for(version):
            source = source_of(tree, patch.target)
            state = reviews.state_of(patch.target, base, source)
            result.append(Compared(patch, state, source))
        else:
            result.append(Compared(patch, "not for this version", None))
    return result


def summary(compared: Sequence[Compared], base: str, version: str) -> str:
    """One line of counts."""
    counts = Counter(each.state for each in compared)
    states = ("same", "changed", "gone", "new", "not for this version")
    told = ", ".join(f"{counts[state]} {state}" for state in states if counts[state])
    against = "its review" if base == version else f"the review of {base}"
    return f"SGLang {version} against {against}: {told}"
