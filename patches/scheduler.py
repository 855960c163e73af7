"""Scheduler: tells its parent that the patches are active in its process."""

from typing import Any

from soft_sglang.patches.record import When, patch

HANDSHAKE = "soft_thinking"
"""Key of the scheduler's start message."""


@patch(
    "managers.scheduler.Scheduler.get_init_info",
    When.AFTER,
    why="A scheduler process in which the plugin was not loaded would quietly decode normally.",
    how="Adds the version to the start message; the parent checks it.",
    upstream="SGLang only logs a plugin's failure.",
    fingerprint="",
)
def announce(info: dict[str, Any], _self: Any) -> dict[str, Any]:
    """Announce the plugin to the parent process."""
    from soft_sglang import __version__

    return {**info, HANDSHAKE: __version__}
