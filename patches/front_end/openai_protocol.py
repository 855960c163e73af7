"""OpenAI request models: the top-level field ``soft_thinking``."""

from collections.abc import Callable
from typing import Any

from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.record import When, patch


@patch(
    "entrypoints.openai.protocol._migrate_deprecated_dp_rank",
    When.AROUND,
    why="Chat and completion requests drop unknown top-level fields.",
    how=(
        "This function is a validator that runs before both models are built; the field moves "
        "into custom_params, which both hand on."
    ),
    upstream="Models that allow extra fields would replace it.",
)
def keep_request_field(original: Callable[[Any], Any], values: Any) -> Any:
    """Move ``soft_thinking`` into ``custom_params``."""
    values = original(values)
    if not isinstance(values, dict) or REQUEST_KEY not in values:
        return values
    values = dict(values)
    field = values.pop(REQUEST_KEY)
    custom = values.get("custom_params")
    if custom is None or isinstance(custom, dict):  # else the model itself refuses it
        values["custom_params"] = {**(custom or {}), REQUEST_KEY: field}
    return values
