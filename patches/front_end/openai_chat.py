"""Chat completions: the answer of soft thinking."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from soft_sglang.patches.front_end.openai_stream import stream_with_answers, with_answers
from soft_sglang.patches.record import When, patch


@patch(
    "entrypoints.openai.serving_chat.OpenAIServingChat._build_chat_response",
    When.AFTER,
    why="The response model has no place for choices[i].soft_thinking.",
    how="Returns a subclass of the response that serialises it.",
    upstream="SGLang's choices[i].meta_info carries it too, for clients that ask for meta_info.",
    fingerprint="70b2459d72c6deb7",
)
def add_answers(
    response: Any, _self: Any, _request: Any, ret: list[dict[str, Any]], *_args: Any, **_kw: Any
) -> Any:
    """Add ``soft_thinking`` to the choices."""
    return with_answers(response, ret)


@patch(
    "entrypoints.openai.serving_chat.OpenAIServingChat._generate_chat_stream",
    When.AROUND,
    why="As for _build_chat_response, in a stream.",
    how="Adds the field to the chunks on their way out.",
    upstream="As for _build_chat_response.",
    fingerprint="5cd34724674d902e",
)
def stream_answers(
    original: Callable[..., AsyncGenerator[str, None]], self: Any, adapted_request: Any, *args: Any
) -> AsyncGenerator[str, None]:
    """Add ``soft_thinking`` to the chunks."""
    return stream_with_answers(original(self, adapted_request, *args), adapted_request)
