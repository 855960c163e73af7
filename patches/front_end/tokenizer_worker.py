"""Tokenizer workers (``--tokenizer-worker-num``): each runs with the plugin, or none does."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from typing import Any

from soft_sglang.patches.front_end.default_markers import check_default_markers
from soft_sglang.patches.record import When, patch

logger = logging.getLogger(__name__)


class Handover:
    """Something that a process can only unpickle by loading the plugin."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (self._content, os.getpid())


def _receive(content: Any, server_pid: int) -> Any:
    """What was handed over, after the plugins are loaded in this process."""
    from sglang.srt.plugins import load_plugins

    from soft_sglang.patches import plugin

    with _or_no_server(server_pid):
        load_plugins()
        plugin.load()  # whatever SGLang was told to load, or failed to
    return content


@contextmanager
def _or_no_server(server_pid: int) -> Iterator[None]:
    """End the whole server if this process of it cannot start: others would start it anew."""
    from sglang.srt.utils import kill_process_tree

    try:
        yield
    except BaseException as error:
        logger.critical("%s The server ends: a tokenizer worker cannot start.", error)
        kill_process_tree(server_pid, skip_pid=os.getpid())
        raise


@patch(
    "managers.multi_tokenizer_mixin.write_data_for_multi_tokenizer",
    When.BEFORE,
    why="Tokenizer workers do not load plugins; they would ignore what requests ask for.",
    how="Hands them their arguments in a form that loads the plugins when it is unpickled.",
    upstream="SGLang loads plugins in every other process; it could in this one.",
)
def hand_over(
    port_args: Any, server_args: Any, scheduler_info: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand a worker's arguments over."""
    return (port_args, server_args, Handover(scheduler_info)), {}


@patch(
    "managers.multi_tokenizer_mixin.TokenizerWorker.__init__",
    When.AFTER,
    why="With several workers the process that starts the server has no tokenizer.",
    how="Checks the server's markers of thinking where there is one.",
    upstream="Not applicable.",
)
def check_worker(_result: None, self: Any, *args: Any, **kwargs: Any) -> None:
    """Check a worker's tokenizer manager."""
    if parent_process() is None:  # the process of an Engine
        check_default_markers(self)
        return
    with _or_no_server(os.getppid()):
        check_default_markers(self)
