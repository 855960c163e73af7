"""What the request that is being handled asks for outside of its sampling parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_field: ContextVar[Any] = ContextVar("soft_thinking_field", default=None)


@contextmanager
def asking(field: Any) -> Iterator[None]:
    """While active, what is generated in this context is asked for with a ``soft_thinking``.

    Args:
        field: its value; None: the request says nothing.
    """
    token = _field.set(field)
    try:
        yield
    finally:
        _field.reset(token)


def asked_field() -> Any:
    """The value of ``soft_thinking`` that this context asks for, None if it says nothing."""
    return _field.get()
