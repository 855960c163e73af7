"""The answer of soft thinking in OpenAI responses, streamed and not; shared by both endpoints."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel, SerializationInfo, model_serializer

from soft_sglang.answer import PER_STEP
from soft_sglang.parameters import REQUEST_KEY

_DATA = "data: "


def with_answers(response: Any, outputs: list[dict[str, Any]]) -> Any:
    """The response with ``choices[i].soft_thinking`` where output i is soft."""
    answers = [output["meta_info"].get(REQUEST_KEY) for output in outputs]
    if not isinstance(response, BaseModel) or not any(answers):
        return response
    extended = _extended_model(type(response)).model_construct(**dict(response))
    extended._soft_thinking = answers
    return extended


_EXTENDED: dict[type[BaseModel], Any] = {}


def _extended_model(model: type[BaseModel]) -> Any:
    """A subclass of a response model that serialises the answers into its choices."""
    if model not in _EXTENDED:

        class WithAnswers(model):  # type: ignore[valid-type, misc]
            _soft_thinking: list[dict[str, Any] | None] = []

            @model_serializer(mode="plain")
            def _serialize_answers(self, info: SerializationInfo) -> Any:
                # a serializer of the model's own would be replaced by this one
                serialize = model.__pydantic_serializer__.to_python
                data = serialize(self, mode=info.mode, by_alias=info.by_alias)
                for choice, answer in zip(data["choices"], self._soft_thinking, strict=True):
                    if answer is not None:
                        choice[REQUEST_KEY] = answer
                return data

        WithAnswers.__name__ = model.__name__
        _EXTENDED[model] = WithAnswers
    return _EXTENDED[model]


async def stream_with_answers(
    stream: AsyncGenerator[str, None], adapted_request: Any
) -> AsyncGenerator[str, None]:
    """Add each choice's own steps to its chunks, and the summary to its last one.

    The tokenizer manager's hook leaves what a choice is owed in ``soft_thinking_chunks``.
    """
    owed: dict[int, dict[str, Any]] = {}
    adapted_request.soft_thinking_chunks = owed
    async with aclosing(stream) as chunks:
        async for text in chunks:
            yield _with_owed(text, owed) if owed else text


def _with_owed(text: str, owed: dict[int, dict[str, Any]]) -> str:
    if not text.startswith(_DATA + "{"):
        return text
    data = json.loads(text[len(_DATA) :])
    changed = False
    for choice in data.get("choices") or ():
        answer = owed.get(choice["index"])
        if answer is None:
            continue
        if choice.get("finish_reason") is not None:
            choice[REQUEST_KEY] = owed.pop(choice["index"])
            changed = True
        elif steps := {name: answer[name] for name in PER_STEP if answer.get(name)}:
            choice[REQUEST_KEY] = steps
            answer.update({name: [] for name in steps})
            changed = True
    return f"{_DATA}{json.dumps(data, ensure_ascii=False)}\n\n" if changed else text
