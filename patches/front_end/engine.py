"""Engine: checks that every scheduler process runs with the patches."""

from typing import Any

from soft_sglang.patches.announcement import (
    HANDSHAKE,
    Support,
    attach_support,
    common_policies,
    problem_of,
)
from soft_sglang.patches.front_end.default_markers import check_default_markers
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.unsupported_modes import unsupported_mode
from soft_sglang.patches.versions import attention_is_data_parallel


@patch(
    "entrypoints.engine.Engine._launch_subprocesses",
    When.AFTER,
    why="As for Scheduler.get_init_info.",
    how="Stops the start if a scheduler did not announce this version of the plugin.",
    upstream="As for Scheduler.get_init_info.",
)
def check_schedulers(result: tuple[Any, ...], _cls: type, server_args: Any, **kwargs: Any) -> None:
    """Stop unless every scheduler announced the plugin; note why it cannot be used, if so."""
    from soft_sglang import __version__

    tokenizer_manager, scheduler_infos = result[0], result[3].scheduler_infos
    ask_later = _has_controller(server_args)  # which does not hand the message on
    if ask_later:
        scheduler_infos = []
    for info in scheduler_infos:
        if info.get(HANDSHAKE) != __version__:
            raise SystemExit(f"soft-sglang: {problem_of(info)}.")
    mode = unsupported_mode(server_args)
    problems = [
        f"this server runs with {mode}" if mode else None,
        *map(problem_of, scheduler_infos),
    ]
    reason = next(filter(None, problems), None)
    attach_support(server_args, Support(reason, common_policies(scheduler_infos), ask_later))
    if hasattr(tokenizer_manager, "tokenizer"):  # not on another node, nor with several workers
        check_default_markers(tokenizer_manager)


def _has_controller(server_args: Any) -> bool:
    """Whether there is a process between this one and the schedulers."""
    from sglang.srt.arg_groups.overrides import resolving_view

    view = resolving_view(server_args)
    return view.dp_size > 1 or attention_is_data_parallel(view)
