"""Engine: checks that every scheduler process runs with the patches."""

from typing import Any

from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler import HANDSHAKE


@patch(
    "entrypoints.engine.Engine._launch_subprocesses",
    When.AFTER,
    why="As for Scheduler.get_init_info.",
    how="Stops the start if a scheduler did not announce this version of the plugin.",
    upstream="As for Scheduler.get_init_info.",
    fingerprint="",
)
def check_schedulers(result: tuple[Any, ...], *args: Any, **kwargs: Any) -> None:
    """Stop unless every scheduler announced the plugin."""
    from soft_sglang import __version__

    for info in result[3].scheduler_infos:
        if info.get(HANDSHAKE) != __version__:
            raise SystemExit(
                "soft-sglang: a scheduler process runs without the plugin "
                f"({info.get(HANDSHAKE, 'not loaded')} instead of {__version__})."
            )
