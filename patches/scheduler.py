"""Scheduler: tells that the patches are active in its process, and how aborted requests ended."""

import json
from collections.abc import Sequence
from typing import Any

from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.output_streamer import final_report
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.request import trace_of
from soft_sglang.policies.registry import registered

HANDSHAKE = "soft_thinking"
"""Key of the plugin's version in the scheduler's start message."""
UNSUPPORTED = "soft_thinking_unsupported"
"""Key of the reason why the model cannot think softly, or None."""
POLICIES = "soft_thinking_policies"
"""Key of the names of the policies that the scheduler's process knows."""


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
    return {**info, **_announcement(self)}


@patch(
    "managers.scheduler.Scheduler.get_internal_state",
    When.AFTER,
    why="With --dp-size above 1 the start messages end at a controller in between.",
    how="Adds the same to the internal state, which the parent can ask every scheduler for.",
    upstream="As for get_init_info.",
    fingerprint="f3c646486e4a82be",
)
def announce_on_request(output: Any, self: Any, *_args: Any) -> None:
    """Announce the plugin to whoever asks for the internal state."""
    output.internal_state.update(_announcement(self))


def _announcement(scheduler: Any) -> dict[str, Any]:
    from soft_sglang import __version__

    reason = getattr(scheduler.tp_worker.model_runner, UNSUPPORTED, None)
    names = [policy.name for policy in registered()]
    return {HANDSHAKE: __version__, UNSUPPORTED: reason, POLICIES: names}


def common_policies(announcements: Sequence[dict[str, Any]]) -> frozenset[str]:
    """The policies that every scheduler knows."""
    names = [frozenset(announcement.get(POLICIES, ())) for announcement in announcements]
    return frozenset.intersection(*names) if names else frozenset()


def problem_of(announcement: dict[str, Any]) -> str | None:
    """Why a scheduler cannot serve soft requests, None if it can."""
    from soft_sglang import __version__

    if announcement.get(HANDSHAKE) != __version__:
        loaded = announcement.get(HANDSHAKE, "not loaded")
        return f"a scheduler process runs without the plugin ({loaded} instead of {__version__})"
    reason: str | None = announcement[UNSUPPORTED]
    return reason


@patch(
    "managers.scheduler._make_abort_req",
    When.AFTER,
    why="A request that is aborted in the queue passes no output streamer; it may have run before.",
    how="Its last report travels in the message's reason, as JSON: only scalars may.",
    upstream="Not applicable.",
    fingerprint="441432a6639f1ddd",
)
def report_abort(message: Any, req: Any, *_args: Any, **_kwargs: Any) -> None:
    """Add the last report of a soft request."""
    trace = trace_of(req)
    if trace is not None:
        report = json.dumps(final_report(req, trace, end="abort"))
        message.finished_reason = {**(message.finished_reason or {}), REQUEST_KEY: report}
