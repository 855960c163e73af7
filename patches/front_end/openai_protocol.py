"""OpenAI request models: the field ``soft_thinking`` and its other carriers."""

from collections.abc import Callable
from typing import Any

from soft_sglang.carriers import agreed, take_field
from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.record import When, patch


@patch(
    "entrypoints.openai.protocol._migrate_deprecated_dp_rank",
    When.AROUND,
    why="Chat and completion requests drop unknown fields, over HTTP and over gRPC.",
    how=(
        "This function is a validator that runs before both models are built; the field moves "
        "from its carriers into custom_params, which both hand on."
    ),
    upstream="Models that allow extra fields would replace it.",
)
def keep_request_field(original: Callable[[Any], Any], values: Any) -> Any:
    """Move ``soft_thinking`` into ``custom_params``.

    Raises:
        ValueError: two carriers disagree, or a key only looks like the field.
    """
    values = original(values)
    if not isinstance(values, dict):
        return values
    rest, field = take_field(values)
    if field is None:
        return rest
    custom = rest.get("custom_params")
    if custom is None or isinstance(custom, dict):  # else the model itself refuses it
        inside = {} if custom is None else custom
        field = agreed([("the request", field), ("custom_params", inside.get(REQUEST_KEY))])
        rest["custom_params"] = {**inside, REQUEST_KEY: field}
    return rest
