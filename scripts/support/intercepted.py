"""Launchers seen from outside: launches recorded, constants and kernels' options changed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

Launch = Callable[[], Any]


class InterceptedKernel:
    """Stands in for a kernel: launches it with other options and remembers how."""

    def __init__(self, kernel: Any, options: dict[str, Any], launches: list[Launch]) -> None:
        self._kernel = kernel
        self._options = options
        self._launches = launches

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        def launch(*args: Any, **kwargs: Any) -> Any:
            call = partial(self._kernel[grid], *args, **{**kwargs, **self._options})
            self._launches.append(call)
            return call()

        return launch


@contextmanager
def overridden(module: ModuleType, **values: Any) -> Iterator[None]:
    """Give attributes of a module, which must exist, other values for a while."""
    own = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in own.items():
            setattr(module, name, value)


@contextmanager
def intercepted(module: ModuleType, kernel: str, **options: Any) -> Iterator[list[Launch]]:
    """Intercept a kernel of a launcher's module; yields its launches, which can be repeated.

    Args:
        module: that launches the kernel.
        kernel: its name there.
        **options: of the launches, such as ``num_warps``, in place of the launcher's.
    """
    launches: list[Launch] = []
    stand_in = InterceptedKernel(getattr(module, kernel), options, launches)
    with overridden(module, **{kernel: stand_in}):
        yield launches
