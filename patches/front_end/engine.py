"""Engine: checks that every scheduler process runs with the patches."""

import logging
from typing import Any

from soft_sglang.markers import read_markers
from soft_sglang.options import DEFAULT_THINK_START
from soft_sglang.patches.announcement import HANDSHAKE, common_policies, problem_of
from soft_sglang.patches.front_end.tokenizer_requests import vocabulary_of
from soft_sglang.patches.options import options_of
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.unsupported_modes import unsupported_mode
from soft_sglang.patches.versions import attention_is_data_parallel

logger = logging.getLogger(__name__)


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
    if tokenizer_manager is not None:
        mode = unsupported_mode(server_args)
        problems = [
            f"this server runs with {mode}" if mode else None,
            *map(problem_of, scheduler_infos),
        ]
        tokenizer_manager.soft_thinking_unsupported = next(filter(None, problems), None)
        tokenizer_manager.soft_thinking_ask_schedulers = ask_later
        tokenizer_manager.soft_thinking_policies = common_policies(scheduler_infos)
        options = options_of(server_args)
        if options.enable_soft_thinking:
            try:
                markers = read_markers(
                    vocabulary_of(tokenizer_manager),
                    options.think_start_str,
                    options.think_end_str,
                    cold_stop_str=None,
                    needs_start=options.think_start_str != DEFAULT_THINK_START,
                )
            except ValueError as error:
                raise SystemExit(f"soft-sglang: {error}") from None
            if len(markers.think_end) > 1:
                logger.warning(
                    "soft-sglang: %r is %d tokens of this model; if its thoughts end otherwise, "
                    "say so with --think-end-str, or they will not be seen to end.",
                    options.think_end_str,
                    len(markers.think_end),
                )


def _has_controller(server_args: Any) -> bool:
    """Whether there is a process between this one and the schedulers."""
    from sglang.srt.arg_groups.overrides import resolving_view

    view = resolving_view(server_args)
    return view.dp_size > 1 or attention_is_data_parallel(view)
