"""HTTP server: the field on every route that generates, and a route that says what it may be."""

from typing import Any

from soft_sglang.parameters import FLAT_NAMES, REQUEST_KEY, request_schema
from soft_sglang.patches.announcement import learn_support
from soft_sglang.patches.front_end.middleware import FieldMiddleware
from soft_sglang.patches.options import options_of
from soft_sglang.patches.record import When, patch

INFO_ROUTE = "/soft_thinking_info"


@patch(
    "entrypoints.http_server.set_global_state",
    When.AFTER,
    why=(
        "Routes other than chat and completions drop the field and have no place for its answer; "
        "and a client cannot know a server's limits and defaults."
    ),
    how=(
        "Puts a middleware inside of all others, and adds a route, in every process that serves "
        "the application; SGLang's API key guards it like every other."
    ),
    upstream="A plugin hook for the application would replace it.",
)
def extend_application(_result: None, global_state: Any) -> None:
    """Let every route that generates take the field; add ``GET /soft_thinking_info``."""
    from sglang.srt.entrypoints.http_server import app

    manager = global_state.tokenizer_manager
    options = options_of(manager.server_args)
    # around the router: in a tokenizer worker the application's own middlewares are built already
    routes = app.router.middleware_stack
    if isinstance(routes, FieldMiddleware):  # of a server that this process ran before
        routes = routes.app
    app.router.middleware_stack = FieldMiddleware(routes, options)

    async def soft_thinking_info() -> dict[str, Any]:
        from soft_sglang import __version__

        support = await learn_support(manager)
        return {
            "version": __version__,
            "enabled_by_default": options.enable_soft_thinking,
            "unsupported": support.unsupported,
            "schema": request_schema(options),
        }

    app.add_api_route(INFO_ROUTE, soft_thinking_info, methods=["GET"])


@patch(
    "entrypoints.api_contract.generate_contract_error",
    When.BEFORE,
    why="/generate refuses sampling parameters that its schema does not know.",
    how="Shows the schema a request without the plugin's; they are checked where they are read.",
    upstream="A plugin hook for sampling parameters would replace it.",
    sglang=">=0.5.22",
)
def hide_own_parameters(body: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Hide the plugin's parameters from the check of ``/generate``."""
    if not isinstance(body, dict) or "sampling_params" not in body:
        return None
    sampling = body["sampling_params"]
    shown = [*map(_without_own, sampling)] if isinstance(sampling, list) else _without_own(sampling)
    return ({**body, "sampling_params": shown},), {}


def _without_own(sampling: Any) -> Any:
    if not isinstance(sampling, dict):
        return sampling
    own = FLAT_NAMES | {REQUEST_KEY}
    return {name: value for name, value in sampling.items() if name not in own}
