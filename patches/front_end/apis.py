"""The forms of other APIs than OpenAI's chat and completions: errors, and where an answer goes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where the answer goes in an object that is sent."""

    object: dict[str, Any]
    """That gets the key ``soft_thinking``."""
    final: bool
    """Whether it ends the generation, so that the summary is known; otherwise the steps that were
    not told yet."""
    whole: bool = False
    """Whether it repeats what earlier objects of the stream told."""


@dataclass(frozen=True)
class Api:
    """One family of routes."""

    error: Callable[[str], dict[str, Any]]
    """The body of a 400 with a message."""
    place: Callable[[dict[str, Any]], Place | None] | None = None
    """Of a response, or of one object of a stream; None: the route's outputs have it already."""
    reads_sampling: bool = False
    """Whether a request's ``sampling_params`` are read by SGLang."""
    inside: str | None = None
    """An object of the body that holds a whole request of ``/generate``."""


def _native_error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


def _openai_error(message: str) -> dict[str, Any]:
    code = HTTPStatus.BAD_REQUEST.value
    return {
        "object": "error",
        "message": message,
        "type": "BadRequest",
        "param": None,
        "code": code,
    }


def _responses_error(message: str) -> dict[str, Any]:
    error = {"type": "invalid_request_error", "param": None, "code": HTTPStatus.BAD_REQUEST.value}
    return {"error": {"message": message, **error}}


def _anthropic_error(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


def _ollama_error(message: str) -> dict[str, Any]:
    return {"error": message}


def _responses_place(data: dict[str, Any]) -> Place | None:
    if data.get("object") == "response":
        return Place(data, final=True, whole=True)
    response = data.get("response")
    if isinstance(response, dict) and response.get("status") not in ("in_progress", "queued"):
        return Place(response, final=True, whole=True)
    return Place(data, final=False) if str(data.get("type")).endswith(".delta") else None


def _anthropic_place(data: dict[str, Any]) -> Place | None:
    if data.get("type") in ("message", "message_delta"):
        return Place(data, final=True)
    return Place(data, final=False) if data.get("type") == "content_block_delta" else None


def _ollama_place(data: dict[str, Any]) -> Place | None:
    return Place(data, final=bool(data.get("done"))) if "done" in data else None


NATIVE = Api(_native_error, reads_sampling=True)
"""``/generate``: every output has its ``meta_info``."""
VERTEX = Api(_native_error, inside="parameters")
"""Its predictions are outputs of ``/generate``."""
OPENAI = Api(_openai_error)
RESPONSES = Api(_responses_error, _responses_place)
ANTHROPIC = Api(_anthropic_error, _anthropic_place)
OLLAMA = Api(_ollama_error, _ollama_place)


def lines_with_json(text: str) -> Iterator[tuple[str, str]]:
    """The lines of a stream's chunk: what precedes the JSON object of each, and the object's text.

    The second is empty in a line without one. Server-sent events and lines of JSON are both read
    so: SGLang writes each object on a line of its own.
    """
    for line in text.split("\n"):
        start = line.find("{")
        prefix = line[:start]
        if start >= 0 and prefix.strip() in ("", "data:"):
            yield prefix, line[start:]
        else:
            yield line, ""
