"""A patch as a record: what it changes in SGLang, why, how, and what it was written against."""

import hashlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any


class When(Enum):
    """When a hook runs; values are those of SGLang's ``HookType``."""

    BEFORE = "before"
    AFTER = "after"
    AROUND = "around"


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
    fingerprint: str
    """Of the upstream source that the hook was written against."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the hook itself."""
        return self.hook(*args, **kwargs)


def patch(
    target: str, when: When, *, why: str, how: str, upstream: str, fingerprint: str
) -> Callable[[Callable[..., Any]], Patch]:
    """Turn a hook function into a :class:`Patch`. Nothing is applied."""

    def record(hook: Callable[..., Any]) -> Patch:
        return Patch(f"sglang.srt.{target}", when, hook, why, how, upstream, fingerprint)

    return record


def patches_in(module: ModuleType) -> list[Patch]:
    """The patches that a module defines, in order."""
    return [value for value in vars(module).values() if isinstance(value, Patch)]


def fingerprint_of(target: str) -> str:
    """Fingerprint of the upstream source of ``target``, whether hooked or not.

    Raises:
        ImportError, AttributeError: the target does not exist.
    """
    owner, _, name = target.rpartition(".")
    function = inspect.getattr_static(pkgutil.resolve_name(owner), name)
    if isinstance(function, (classmethod, staticmethod)):
        function = function.__func__
    source = inspect.getsource(inspect.unwrap(function))
    return hashlib.sha256(source.encode()).hexdigest()[:16]
