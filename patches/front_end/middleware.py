"""Middleware of the HTTP server: the field ``soft_thinking`` where SGLang's routes drop it.

Off is off: a body that cannot have the field is handed on as it came, and a response without an
answer too.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse

from soft_sglang.answer import PER_STEP, chunk
from soft_sglang.carriers import agreed, is_asked, may_have_field, take_field
from soft_sglang.options import ServerOptions
from soft_sglang.parameters import REQUEST_KEY, read_request
from soft_sglang.patches.front_end.apis import OPENAI, Api, Place, lines_with_json
from soft_sglang.patches.front_end.asking import asking
from soft_sglang.patches.front_end.routes import (
    NOTHING_GENERATED,
    TRANSCRIPTIONS,
    generating_routes,
)
from soft_sglang.patches.front_end.tokenizer_answers import collecting_answers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_FORM_FIELD = re.compile(
    rb'^content-disposition:\s*form-data;\s*name="?soft[-_ ]?thinking"?\s*(?:;|\r?$)',
    re.IGNORECASE | re.MULTILINE,
)
_BUILT_IN_TOOLS = frozenset({"web_search", "web_search_preview", "code_interpreter"})
"""Of ``/v1/responses``: SGLang generates again after each call of theirs."""


class FieldMiddleware:
    """ASGI middleware; must be the innermost, so that it sees what a route sees."""

    def __init__(self, app: Any, options: ServerOptions) -> None:
        self.app = app
        self._options = options
        self._generating = generating_routes()
        self._apis = {**NOTHING_GENERATED, TRANSCRIPTIONS: OPENAI, **self._generating}

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = _route_path(scope)
        api = self._apis.get(path)
        if api is None or scope["type"] != "http" or scope["method"] not in ("POST", "PUT"):
            await self.app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            return
        try:
            if path in self._generating:
                body, field = self._taken(api, body)
            else:
                field = None
                _refuse_field(path, body)
        except ValueError as error:
            await JSONResponse(api.error(str(error)), 400)(scope, receive, send)
            return
        receive = _replayed(body, receive)
        with asking(field):
            if api.place is None:
                await self.app(scope, receive, send)
                return
            with collecting_answers() as answers:
                await self.app(scope, receive, Answering(send, api.place, answers))

    def _taken(self, api: Api, body: bytes) -> tuple[bytes, Any]:
        """The body of a request without the field, and the field."""
        parsed = _parsed(body)
        if parsed is None:
            return body, None
        rest, field = take_field(parsed, reads_sampling=api.reads_sampling)
        if api.inside is not None and isinstance(rest.get(api.inside), dict):
            rest[api.inside], own = take_field(rest[api.inside], reads_sampling=True)
            field = agreed([("the request", field), (api.inside, own)])
        if is_asked(field):
            _refuse_lost_answers(parsed)
        # now, while the status can still say so: some routes answer errors in a stream
        read_request(field, {}, self._options)
        return (body if rest == parsed else json.dumps(rest).encode()), field


class Answering:
    """Sends a response on, with the answers put where a client of its API finds them."""

    def __init__(
        self,
        send: Send,
        place: Callable[[dict[str, Any]], Place | None],
        answers: Mapping[int, dict[str, Any]],
    ) -> None:
        """``answers``: by choice, filled while outputs are read; these APIs have one choice."""
        self._send = send
        self._place = place
        self._answers = answers
        self._told = 0
        self._start: Message | None = None
        """Of a response with a length, held back until its body is there."""
        self._body = b""

    async def __call__(self, message: Message) -> None:
        """Send a message of the ASGI protocol."""
        if message["type"] == "http.response.start":
            has_length = "content-length" in MutableHeaders(raw=message["headers"])
            if has_length and self._answers:
                self._start = message
                return
        elif message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            message = {**message, "body": self._with_answers(self._body)}
            headers = MutableHeaders(raw=self._start["headers"])
            headers["content-length"] = str(len(message["body"]))
            await self._send({**self._start, "headers": headers.raw})
            self._start = None
        elif message["type"] == "http.response.body" and self._answers:
            message = {**message, "body": self._with_answers(message.get("body", b""))}
        await self._send(message)

    def _with_answers(self, body: bytes) -> bytes:
        lines = [
            prefix + (self._with_answer(text) if text else "")
            for prefix, text in lines_with_json(body.decode())
        ]
        return "\n".join(lines).encode()

    def _with_answer(self, text: str) -> str:
        data = json.loads(text)
        place = self._place(data)
        answer = self._answers.get(0)
        if place is None or answer is None:
            return text
        part, told = chunk(answer, self._told)
        if place.final:
            part = dict(answer) if place.whole else part
        else:
            part = {name: part[name] for name in PER_STEP if part.get(name)}
        if not part:
            return text
        self._told = told
        place.object[REQUEST_KEY] = part
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _route_path(scope: Any) -> str:
    """The path of a request as the router sees it, without what a proxy put before it."""
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def _refuse_field(path: str, body: bytes) -> None:
    """Refuse the field on a route that cannot honour it."""
    if path == TRANSCRIPTIONS:
        asked = _FORM_FIELD.search(body) is not None
    else:
        asked = is_asked(take_field(_parsed(body) or {})[1])
    if asked:
        raise ValueError(
            f"{REQUEST_KEY} is not available on {path}; use a route that generates text, "
            "such as /v1/chat/completions."
        )


def _refuse_lost_answers(request: Mapping[str, Any]) -> None:
    """Refuse what SGLang answers later or in several parts, of which one answer cannot tell."""
    if request.get("background"):
        raise ValueError(
            f"{REQUEST_KEY} cannot be combined with background; its answer would be lost."
        )
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind in _BUILT_IN_TOOLS:
            raise ValueError(
                f"{REQUEST_KEY} cannot be combined with the built-in tool {kind!r}, after which "
                "the model thinks anew; use a function."
            )


async def _read(receive: Receive) -> bytes | None:
    """The whole body of a request; None: the client has gone."""
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read, then whatever comes: the client's disconnect."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _parsed(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a body that may have the field; None: SGLang's business."""
    if not may_have_field(body):
        return None
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None
