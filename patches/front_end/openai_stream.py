"""The answer of soft thinking in the models and chunks of OpenAI responses."""

import json
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Any

from pydantic import BaseModel, SerializationInfo, model_serializer

from soft_sglang.answer import PER_STEP
from soft_sglang.parameters import REQUEST_KEY

_DATA = "data: "


def with_answers(response: Any, answers: Mapping[int, dict[str, Any]]) -> Any:
    """The response with ``choices[i].soft_thinking`` where output i is soft."""
    if not answers or not _has_choices(response):
        return response
    extended = _extended_model(type(response)).model_construct(**dict(response))
    extended._soft_thinking = answers
    return extended


def _has_choices(response: Any) -> bool:
    """Whether it is a chat or a completion: transcriptions have none, and errors."""
    return isinstance(response, BaseModel) and "choices" in type(response).model_fields


_EXTENDED: dict[type[BaseModel], Any] = {}


def _extended_model(model: type[BaseModel]) -> Any:
    """A subclass of a response model that serialises the answers into its choices."""
    if model not in _EXTENDED:

        class WithAnswers(model):  # type: ignore[valid-type, misc]
            _soft_thinking: Mapping[int, dict[str, Any]] = {}

            @model_serializer(mode="plain")
            def _serialize_answers(self, info: SerializationInfo) -> Any:
                # a serializer of the model's own would be replaced by this one
                serialize = model.__pydantic_serializer__.to_python
                data = serialize(self, mode=info.mode, by_alias=info.by_alias)
                for choice in data["choices"]:
                    if choice["index"] in self._soft_thinking:
                        choice[REQUEST_KEY] = self._soft_thinking[choice["index"]]
                return data

        WithAnswers.__name__ = model.__name__
        _EXTENDED[model] = WithAnswers
    return _EXTENDED[model]


async def stream_with_answers(
    stream: AsyncIterable[Any], owed: dict[int, dict[str, Any]]
) -> AsyncGenerator[Any, None]:
    """Add each choice's own steps to its chunks, and the summary to its last one.

    ``owed``: what the choices are owed, by index; filled while the stream is read.
    """
    try:
        async for text in stream:
            yield _with_owed(text, owed) if owed else text
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


def _with_owed(text: str, owed: dict[int, dict[str, Any]]) -> str:
    if not text.startswith(_DATA + "{"):
        return text
    data = json.loads(text[len(_DATA) :])
    changed = False
    for choice in data.get("choices") or ():
        index = choice.get("index", 0)  # a transcription's chunks have none
        answer = owed.get(index)
        if answer is None:
            continue
        if choice.get("finish_reason") is not None:
            choice[REQUEST_KEY] = owed.pop(index)
            changed = True
        elif steps := {name: answer[name] for name in PER_STEP if answer.get(name)}:
            choice[REQUEST_KEY] = steps
            answer.update({name: [] for name in steps})
            changed = True
    return f"{_DATA}{json.dumps(data, ensure_ascii=False)}\n\n" if changed else text
