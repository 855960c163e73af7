"""Server arguments: the plugin's own flags, and what it does not run with."""

import argparse
from typing import Any

from soft_sglang.options import DEFAULT_MAX_TOPK, DEFAULT_THINK_END, ServerOptions
from soft_sglang.patches.record import When, patch

_ATTRIBUTE = "_soft_thinking"
"""Underscore attributes of ServerArgs stay writable and survive the pickling to the workers."""


def options_of(server_args: Any) -> ServerOptions:
    """The plugin's options of a server."""
    options: ServerOptions = getattr(server_args, _ATTRIBUTE, None) or ServerOptions()
    return options


def attach_options(server_args: Any, options: ServerOptions) -> None:
    """Store the plugin's options on a server's arguments."""
    setattr(server_args, _ATTRIBUTE, options)


@patch(
    "server_args.ServerArgs.add_cli_args",
    When.AFTER,
    why="The server needs flags of the plugin.",
    how="Adds an argument group to SGLang's parser.",
    upstream="A plugin hook for arguments would replace it; none exists.",
    fingerprint="ce780d0354af0f0d",
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
        help="Token that ends thinking.",
    )


@patch(
    "server_args.ServerArgs.from_cli_args",
    When.AFTER,
    why="The parsed flags must reach every process.",
    how="Attaches them to the ServerArgs object, which is pickled to the workers.",
    upstream="As for add_cli_args.",
    fingerprint="32152825e268b6da",
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
    fingerprint="84a23bc7327d0246",
)
def refuse_unsupported(_result: Any, server_args: Any) -> None:
    """Raise ValueError for a mode that soft thinking does not run with."""
    what = unsupported_mode(server_args)
    if what is not None and options_of(server_args).required:
        raise ValueError(
            f"soft-sglang does not support {what} yet. Remove it, or run SGLang without soft "
            "thinking: `sglang serve`, without --enable-soft-thinking."
        )


def unsupported_mode(server_args: Any) -> str | None:
    """The mode of a server that soft thinking does not run with, None if there is none."""
    from sglang.srt.arg_groups.overrides import resolving_view
    from sglang.srt.environ import envs

    view = resolving_view(server_args)
    modes = {
        "speculative decoding (--speculative-algorithm)": view.speculative_algorithm is not None,
        "diffusion language models (--dllm-algorithm)": view.dllm_algorithm is not None,
        "PD disaggregation (--disaggregation-mode)": (
            view.disaggregation_mode not in (None, "null")
        ),
        "pipeline parallelism (--pp-size)": view.pp_size > 1,
        "PD multiplexing (--enable-pdmux)": view.enable_pdmux,
        "context parallelism (--attn-cp-size)": view.attn_cp_size > 1,
        "--enable-two-batch-overlap": view.enable_two_batch_overlap,
        "DP attention (--enable-dp-attention)": view.enable_dp_attention,
        "--tokenizer-worker-num above 1": view.tokenizer_worker_num > 1,
        "--disaggregation-decode-enable-offload-kvcache": (
            view.disaggregation_decode_enable_offload_kvcache
        ),
        "the Rust server (SGLANG_RUST_SERVER)": envs.SGLANG_RUST_SERVER.get(),
    }
    return next((what for what, present in modes.items() if present), None)
