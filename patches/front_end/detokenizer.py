"""Detokenizer: trims a stop that was matched in the answer there, not in the thought."""

from collections.abc import Callable
from functools import partial
from typing import Any

from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.stops import FROM_END


@patch(
    "managers.detokenizer_manager.DetokenizerManager.trim_matched_stop",
    When.AROUND,
    why="It trims at the first occurrence in the whole output, which may be in the thought.",
    how="Hands on only the end of the output, in which the scheduler found the stop.",
    upstream="Trimming where the scheduler matched would be right for every request.",
)
def trim_in_answer(
    original: Callable[..., Any],
    self: Any,
    output: Any,
    finished_reason: dict[str, Any] | None,
    no_stop_trim: bool,
) -> Any:
    """Trim the matched stop off an output, text or ids."""
    from_end = (finished_reason or {}).get(FROM_END)
    if from_end is None or not isinstance(output, str):
        return original(self, output, finished_reason, no_stop_trim)
    kept = output[: max(len(output) - from_end, 0)]
    return kept + original(self, output[len(kept) :], finished_reason, no_stop_trim)


@patch(
    "entrypoints.engine.Engine._launch_detokenizer_subprocesses",
    When.AROUND,
    why="The detokenizer's process does not load plugins.",
    how="Starts it with a function that does.",
    upstream="SGLang loads them itself since 0.5.22.",
    sglang="<0.5.22",
)
def launch_with_plugin(original: Callable[..., Any], cls: type, *args: Any, **kwargs: Any) -> Any:
    """Launch the detokenizer."""
    name = "run_detokenizer_process_func"
    return original(cls, *args, **{**kwargs, name: partial(run_with_plugin, kwargs[name])})


def run_with_plugin(run: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """The process: what ``run`` does, after the plugins are loaded."""
    from sglang.srt.plugins import load_plugins

    load_plugins()
    run(*args, **kwargs)
