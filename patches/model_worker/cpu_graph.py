"""CPU graph: SGLang's compiled decode step on a CPU."""

from collections.abc import Callable
from typing import Any

from soft_sglang.patches.record import When, patch

_running = False


def cpu_graph_is_running() -> bool:
    """Whether the model is being called by the CPU graph runner, to compile or to decode."""
    return _running


def _run(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    global _running
    _running = True
    try:
        return original(*args, **kwargs)
    finally:
        _running = False


@patch(
    "model_executor.cpu_graph_runner.CPUGraphRunner.capture",
    When.AROUND,
    why="A decode step is compiled once per batch size, without SGLang's capture mode.",
    how="Marks it, so that the model reads the table through the runner's request slots.",
    upstream="Capture mode on the CPU too would replace it.",
    fingerprint="bc95401485b3a264",
)
def compile_with_table(original: Callable[..., None], self: Any) -> None:
    """Compile the decode steps."""
    _run(original, self)


@patch(
    "model_executor.cpu_graph_runner.CPUGraphRunner.execute",
    When.AROUND,
    why="A batch may be padded to a compiled size: the rows announced for it would not fit.",
    how="As for capture.",
    upstream="As for capture.",
    fingerprint="41e45e611fb528a3",
)
def decode_with_table(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Decode a batch."""
    return _run(original, self, *args, **kwargs)
