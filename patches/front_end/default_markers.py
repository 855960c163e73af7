"""The markers of thinking that a server's flags name, against the tokens of its model."""

import logging
from typing import Any

from soft_sglang.markers import read_markers
from soft_sglang.options import DEFAULT_THINK_START
from soft_sglang.patches.front_end.tokenizer_requests import vocabulary_of
from soft_sglang.patches.options import options_of

logger = logging.getLogger(__name__)


def check_default_markers(manager: Any) -> None:
    """Check the markers of a tokenizer manager's server, if every request is to think softly.

    Raises:
        SystemExit: the model has no such tokens.
    """
    options = options_of(manager.server_args)
    if not options.enable_soft_thinking:
        return
    try:
        markers = read_markers(
            vocabulary_of(manager),
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
