"""HTTP server: a route that says what soft requests may ask for."""

from typing import Any

from soft_sglang.parameters import request_schema
from soft_sglang.patches.front_end.tokenizer_requests import learn_support
from soft_sglang.patches.options import options_of
from soft_sglang.patches.record import When, patch

INFO_ROUTE = "/soft_thinking_info"


@patch(
    "entrypoints.http_server._setup_and_run_http_server",
    When.BEFORE,
    why="A client cannot know a server's limits and defaults otherwise.",
    how="Adds a route to the application; SGLang's API key guards it like every other.",
    upstream="A plugin hook for routes would replace it.",
    fingerprint="b4607c4fe1da25e9",
)
def add_info_route(server_args: Any, tokenizer_manager: Any, *args: Any, **kwargs: Any) -> None:
    """Add ``GET /soft_thinking_info``."""
    from sglang.srt.entrypoints.http_server import app

    async def soft_thinking_info() -> dict[str, Any]:
        from soft_sglang import __version__

        await learn_support(tokenizer_manager)
        options = options_of(server_args)
        return {
            "version": __version__,
            "enabled_by_default": options.enable_soft_thinking,
            "unsupported": getattr(tokenizer_manager, "soft_thinking_unsupported", None),
            "schema": request_schema(options),
        }

    app.add_api_route(INFO_ROUTE, soft_thinking_info, methods=["GET"])
