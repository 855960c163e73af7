"""Scheduler: tells that the patches are active in its process, and how aborted requests ended."""

import json
from typing import Any

from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.announcement import UNSUPPORTED, announcement, combined, problem_of
from soft_sglang.patches.options import options_of
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.output_streamer import final_report
from soft_sglang.patches.scheduler.request import reporter_of
from soft_sglang.patches.scheduler.world import announcements_of_all
from soft_sglang.policies.registry import registered

_ATTRIBUTE = "soft_thinking_announcement"
"""Of a scheduler: what the processes of its model announce together."""


@patch(
    "managers.scheduler.Scheduler.get_init_info",
    When.AFTER,
    why="A scheduler process in which the plugin was not loaded would quietly decode normally.",
    how=(
        "Adds the version to the start message, and what the processes of other nodes and stages "
        "announce; the parent checks it. A process that is to think softly stops by itself, too: "
        "the parent on another node than the first has no front end that would."
    ),
    upstream="SGLang only logs a plugin's failure.",
)
def announce(info: dict[str, Any], self: Any) -> dict[str, Any]:
    """Announce the plugin to the parent process.

    Raises:
        RuntimeError: soft thinking would not work, and the server was started for it.
    """
    model_runner, options = self.tp_worker.model_runner, options_of(self.server_args)
    reason = getattr(model_runner, UNSUPPORTED, None)
    own = announcement(reason, [policy.name for policy in registered()], options.max_topk)
    together = combined(announcements_of_all(own))
    setattr(self, _ATTRIBUTE, together)
    problem = problem_of(together)
    if problem is not None and options.required:
        raise RuntimeError(f"soft-sglang: {problem}.")
    return {**info, **together}


@patch(
    "managers.scheduler.Scheduler.get_internal_state",
    When.AFTER,
    why="With --dp-size above 1 the start messages end at a controller in between.",
    how="Adds the same to the internal state, which the parent can ask every scheduler for.",
    upstream="As for get_init_info.",
)
def announce_on_request(output: Any, self: Any, *_args: Any) -> None:
    """Announce the plugin to whoever asks for the internal state."""
    output.internal_state.update(getattr(self, _ATTRIBUTE))


@patch(
    "managers.scheduler._make_abort_req",
    When.AFTER,
    why="A request that is aborted in the queue passes no output streamer; it may have run before.",
    how="Its last report travels in the message's reason, as JSON: only scalars may.",
    upstream="Not applicable.",
)
def report_abort(message: Any, req: Any, *_args: Any, **_kwargs: Any) -> None:
    """Add the last report of a soft request."""
    reporter = reporter_of(req)
    if reporter is not None:
        report = json.dumps(final_report(req, reporter, end="abort"))
        message.finished_reason = {**(message.finished_reason or {}), REQUEST_KEY: report}
