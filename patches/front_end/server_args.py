"""Server arguments: the plugin's own flags, and what it does not run with."""

import argparse
from typing import Any

from soft_sglang.options import (
    DEFAULT_MAX_TOPK,
    DEFAULT_THINK_END,
    DEFAULT_THINK_START,
    ServerOptions,
)
from soft_sglang.patches.options import attach_options, options_of
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.unsupported_modes import unsupported_mode


@patch(
    "server_args.ServerArgs.add_cli_args",
    When.AFTER,
    why="The server needs flags of the plugin.",
    how="Adds an argument group to SGLang's parser.",
    upstream="A plugin hook for arguments would replace it; none exists.",
)
def add_flags(_result: Any, parser: argparse.ArgumentParser) -> None:
    """Add the plugin's flags."""
    group = parser.add_argument_group("soft thinking")
    group.add_argument(
        "--enable-soft-thinking",
        action="store_true",
        help="Think softly in every request that does not say otherwise.",
    )
    group.add_argument(
        "--max-topk",
        type=int,
        default=DEFAULT_MAX_TOPK,
        help="Largest number of tokens in a concept that a request may ask for.",
    )
    group.add_argument(
        "--think-end-str",
        type=str,
        default=DEFAULT_THINK_END,
        help="Text of up to 16 tokens that ends thinking.",
    )
    group.add_argument(
        "--think-start-str",
        type=str,
        default=DEFAULT_THINK_START,
        help="Text of up to 16 tokens that begins thinking.",
    )


@patch(
    "server_args.ServerArgs.from_cli_args",
    When.AFTER,
    why="The parsed flags must reach every process.",
    how="Attaches them to the ServerArgs object, which is pickled to the workers.",
    upstream="As for add_cli_args.",
)
def read_flags(server_args: Any, _cls: type, args: argparse.Namespace) -> None:
    """Attach the parsed flags."""
    if not hasattr(args, "enable_soft_thinking"):
        return
    try:
        options = ServerOptions(
            enable_soft_thinking=args.enable_soft_thinking,
            max_topk=args.max_topk,
            think_end_str=args.think_end_str,
            think_start_str=args.think_start_str,
            required=args.enable_soft_thinking,
        )
    except ValueError as error:
        raise SystemExit(f"soft-sglang: {error}") from None
    attach_options(server_args, options)


@patch(
    "server_args.ServerArgs.check_server_args",
    When.AFTER,
    why="Some modes of SGLang would decode soft requests wrongly.",
    how=(
        "Refuses them at the start, naming the flag, if the server is to think softly; otherwise "
        "the server starts as ever, and only requests that ask are refused."
    ),
    upstream="Not applicable.",
)
def refuse_unsupported(_result: Any, server_args: Any) -> None:
    """Raise ValueError for a mode that soft thinking does not run with."""
    what = unsupported_mode(server_args)
    if what is not None and options_of(server_args).required:
        raise ValueError(
            f"soft-sglang does not support {what} yet. Remove it, or run SGLang without soft "
            "thinking: `sglang serve`, without --enable-soft-thinking."
        )
