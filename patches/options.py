"""The plugin's options, carried by SGLang's ServerArgs to every process."""

from typing import Any

from soft_sglang.options import ServerOptions

_ATTRIBUTE = "_soft_thinking"
"""Underscore attributes of ServerArgs stay writable and survive the pickling to the workers."""


def options_of(server_args: Any) -> ServerOptions:
    """The plugin's options of a server."""
    options: ServerOptions = getattr(server_args, _ATTRIBUTE, None) or ServerOptions()
    return options


def attach_options(server_args: Any, options: ServerOptions) -> None:
    """Store the plugin's options on a server's arguments."""
    setattr(server_args, _ATTRIBUTE, options)
