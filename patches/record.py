"""A patch as a record: what it changes in SGLang, why and how."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Any

from packaging.specifiers import SpecifierSet


class When(Enum):
    """When a hook runs; the first three are SGLang's ``HookType`` and hold for the whole class."""

    BEFORE = "before"
    AFTER = "after"
    AROUND = "around"
    OVERRIDE = "override"
    """Around the method of one object that the plugin chooses: see :meth:`Patch.override`."""


@dataclass(frozen=True)
class Patch:
    """One hook on one upstream function."""

    target: str
    """Dotted path of the function."""
    when: When
    hook: Callable[..., Any]
    why: str
    how: str
    upstream: str
    """Whether upstream offers, or could offer, another way."""
    sglang: SpecifierSet
    """The versions that have the target; empty: all that are supported."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the hook itself."""
        return self.hook(*args, **kwargs)

    def is_for(self, version: str) -> bool:
        """Whether that version of SGLang has the target."""
        return self.sglang.contains(version)

    def override(self, patched: Any, owner: Any) -> Callable[..., Any]:
        """Put the hook around the method of one object; returns the method as it was.

        The hook is called with the original, with ``owner``, and with the method's arguments.
        """
        name = self.target.rpartition(".")[2]
        original: Callable[..., Any] = getattr(patched, name)
        setattr(patched, name, partial(self.hook, original, owner))
        return original


def patch(
    target: str, when: When, *, why: str, how: str, upstream: str, sglang: str = ""
) -> Callable[[Callable[..., Any]], Patch]:
    """Turn a hook function into a :class:`Patch`. Nothing is applied."""

    def record(hook: Callable[..., Any]) -> Patch:
        return Patch(f"sglang.srt.{target}", when, hook, why, how, upstream, SpecifierSet(sglang))

    return record


def patches_in(module: ModuleType) -> list[Patch]:
    """The patches that a module defines, for all versions of SGLang, in order."""
    return [value for value in vars(module).values() if isinstance(value, Patch)]
