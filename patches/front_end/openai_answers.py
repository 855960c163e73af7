"""OpenAI routes: the answer of soft thinking in their responses, streamed and not."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import StreamingResponse

from soft_sglang.patches.front_end.openai_stream import stream_with_answers, with_answers
from soft_sglang.patches.front_end.tokenizer_answers import collecting_answers
from soft_sglang.patches.record import When, patch


@patch(
    "entrypoints.openai.serving_base.OpenAIServingBase.handle_request",
    When.AROUND,
    why="The response models have no place for choices[i].soft_thinking.",
    how=(
        "Collects the answers that leave the tokenizer manager meanwhile, and returns a subclass "
        "of the response that serialises them, or adds them to the chunks on their way out."
    ),
    upstream="SGLang's choices[i].meta_info carries it in chat, for clients that ask for it.",
)
async def add_answers(original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Answer a request of one of these routes; those without choices are left as they are."""
    with collecting_answers() as answers:
        response = await original(*args, **kwargs)
    if isinstance(response, StreamingResponse):
        response.body_iterator = stream_with_answers(response.body_iterator, answers)
        return response
    return with_answers(response, answers)
