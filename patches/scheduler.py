"""Scheduler: tells its parent that the patches are active in its process."""

from typing import Any

from soft_sglang.patches.record import When, patch

HANDSHAKE = "soft_thinking"
"""Key of the plugin's version in the scheduler's start message."""
UNSUPPORTED = "soft_thinking_unsupported"
"""Key of the reason why the model cannot think softly, or None."""


@patch(
    "managers.scheduler.Scheduler.get_init_info",
    When.AFTER,
    why="A scheduler process in which the plugin was not loaded would quietly decode normally.",
    how="Adds the version to the start message; the parent checks it.",
    upstream="SGLang only logs a plugin's failure.",
    fingerprint="ff0eddbe87205963",
)
def announce(info: dict[str, Any], self: Any) -> dict[str, Any]:
    """Announce the plugin to the parent process."""
    from soft_sglang import __version__

    reason = getattr(self.tp_worker.model_runner, UNSUPPORTED, None)
    return {**info, HANDSHAKE: __version__, UNSUPPORTED: reason}
