"""Starts SGLang's own server with the plugin loaded."""

import os
from dataclasses import replace

from soft_sglang.patches import plugin
from soft_sglang.patches.options import attach_options, options_of
from soft_sglang.server.arguments import with_defaults
from soft_sglang.server.redaction import hide_in_arguments


def run(argv: list[str], on_cpu: bool) -> None:
    """Run the server until it is stopped.

    Args:
        argv: flags of SGLang and of the plugin.
        on_cpu: whether the CPU engine is chosen.

    Raises:
        SystemExit: an argument is wrong, or a patch is not active.
    """
    plugin.load()
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    load_plugins()  # the others that are installed
    server_args = prepare_server_args(with_defaults(argv, on_cpu))
    attach_options(server_args, replace(options_of(server_args), required=True))
    hide_in_arguments(
        [server_args.api_key, server_args.admin_api_key, server_args.ssl_keyfile_password]
    )
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)
