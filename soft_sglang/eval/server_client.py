"""Asks a running server through OpenAI's chat completions."""

import asyncio
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai

from soft_sglang.bundled import MODEL_PATH
from soft_sglang.eval.client import NO_PENALTIES, ClientError, Output, Question, summary
from soft_sglang.eval.errors import first_line
from soft_sglang.eval.separation import end_of_thinking, is_closed, split
from soft_sglang.options import DEFAULT_THINK_END

_Result = TypeVar("_Result")
_LONGEST_ANSWER = 24 * 3600.0
"""Seconds; a large model under load may think for an hour."""
_TO_CONNECT = 20.0
_IDLE_WITHIN = 10.0
"""Seconds."""


class ServerClient:
    """Asks a server that has the plugin, another SGLang, or another of OpenAI's interface."""

    def __init__(
        self, url: str, api_key: str, model: str | None = None, think_end: str | None = None
    ) -> None:
        """Find out what the server is.

        Args:
            url: with or without ``/v1``.
            api_key: anything if the server wants none.
            model: its name there; None: the first.
            think_end: what ends thinking; None: the server's default, else ``</think>``.

        Raises:
            ClientError: no server answers, or it refuses.
        """
        self.server = url.rstrip("/").removesuffix("/v1")
        self._key = api_key
        with httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(60, connect=_TO_CONNECT),
        ) as http:
            listed = self._models(http)
            name = model or str(listed[0]["id"])
            self._info = _get(http, "/soft_thinking_info")
            model_info = _get(http, "/model_info") or {}
            server_info = _get(http, "/server_info") or {}
            self.think_end = think_end or self._default_think_end()
            self._think_end_ids = _tokenize(http, name, self.think_end)
        path = str(model_info.get("model_path", name))
        bundled = Path(path) == Path(MODEL_PATH)
        self.model: Mapping[str, Any] = {
            "path": "bundled" if bundled else path,
            "name": "bundled" if bundled else name.rsplit("/", 1)[-1],
            "digest": None,
        }
        self._served_name = name
        lengths = [entry.get("max_model_len") for entry in listed if entry.get("id") == name]
        self.context_length: int | None = lengths[0] if lengths else None
        self.versions: Mapping[str, str | None] = {
            "soft_sglang": (self._info or {}).get("version"),
            "sglang": server_info.get("version"),
            "torch": None,
            "transformers": None,
        }
        self._openai = openai.AsyncOpenAI(
            base_url=f"{self.server}/v1",
            api_key=api_key,
            timeout=httpx.Timeout(_LONGEST_ANSWER, connect=_TO_CONNECT),
        )

    def require_soft_thinking(self) -> None:
        """Check that the server has the plugin, and that its mode allows soft thinking."""
        if self._info is None:
            raise ClientError(
                f"the server at {self.server} has no soft thinking (it does not know "
                "/soft_thinking_info); only the arms cot_stock and cot_greedy can run there"
            )
        if self._info.get("unsupported"):
            raise ClientError(
                f"the server at {self.server} cannot think softly: {self._info['unsupported']}"
            )

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run in a loop of its own."""
        return asyncio.run(work)

    async def ask(self, question: Question) -> Output:
        """Ask once; thinking stays in the text, so that every server's is split by one rule."""
        sampling = question.sampling
        standard: dict[str, Any] = {
            "model": self._served_name,
            "messages": [{"role": "user", "content": question.message}],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": question.seed,
        }
        extra: dict[str, Any] = {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            **NO_PENALTIES,
            "separate_reasoning": False,
            "skip_special_tokens": False,
            "return_output_ids_in_sglext": True,
        }
        if self._info is not None:
            extra["soft_thinking"] = question.soft_thinking
        try:
            response = await self._openai.chat.completions.create(**standard, extra_body=extra)
        except openai.APIConnectionError as error:
            raise ClientError(f"the server at {self.server} does not answer: {error}") from error
        except openai.APIStatusError as error:
            raise ClientError(
                f"the server at {self.server} refuses a request: {_message(error)}"
            ) from error
        return await self._output({**standard, **extra}, response.to_dict())

    async def _output(self, request: Mapping[str, Any], response: Mapping[str, Any]) -> Output:
        choice = response["choices"][0]
        reason = str(choice["finish_reason"])
        if reason == "abort":
            raise ClientError(f"the server at {self.server} broke a request off")
        text, thinking, answer = self._texts(choice["message"])
        usage = response["usage"]
        thinking_tokens = _counted_by_server(usage)
        output_ids = (response.get("sglext") or {}).get("output_ids")
        own = summary(choice.get("soft_thinking"))
        if request.get("soft_thinking") and own is None:
            raise ClientError(
                f"the server at {self.server} answered a soft request with an ordinary answer; "
                "something on the way drops the field soft_thinking"
            )
        if is_closed(own):
            thinking, answer, thinking_tokens = "", text, 0
        elif output_ids and self._think_end_ids:
            ids = output_ids[0]
            end = end_of_thinking(ids, self._think_end_ids)
            thinking_tokens = len(ids) if end is None else end
            if end is None:
                thinking, answer = None, ""
            elif text.count(self.think_end) != 1:
                thought = await self._detokenized(ids[:end])
                thinking, answer = split(text, self.think_end, thought.count(self.think_end))
        return Output(
            request=request,
            text=text,
            thinking=thinking,
            answer=answer,
            tokens=usage["completion_tokens"],
            thinking_tokens=thinking_tokens,
            finish_reason=reason,
            soft_thinking=own,
        )

    def _texts(self, message: Mapping[str, Any]) -> tuple[str, str | None, str]:
        """Output, thought and answer."""
        content = message.get("content") or ""
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        if reasoning is None:
            return content, *split(content, self.think_end)
        if not content:  # a server that separates by itself; thinking never ended
            return reasoning, None, ""
        return f"{reasoning}{self.think_end}{content}", reasoning, content

    async def _detokenized(self, ids: list[int]) -> str:
        """The text of output ids."""
        request = {"model": self._served_name, "tokens": ids, "skip_special_tokens": False}
        content = (await self._post("/detokenize", json=request)).json()
        return str(content["text"])

    async def forget_prompts(self) -> bool:
        """Empty the prefix cache, where the server can."""
        response = await self._post("/flush_cache", params={"timeout": _IDLE_WITHIN})
        return response.status_code == 200

    async def _post(self, route: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._key}"}
        async with httpx.AsyncClient(base_url=self.server, timeout=60, headers=headers) as http:
            try:
                return await http.post(route, **request)
            except httpx.HTTPError as error:
                raise ClientError(f"the server at {self.server} does not answer") from error

    def close(self) -> None:
        """Nothing to let go of: the server is not ours."""

    def _models(self, http: httpx.Client) -> list[dict[str, Any]]:
        """At least one, each with its ``id``."""
        try:
            response = http.get("/v1/models")
            response.raise_for_status()
            models: list[dict[str, Any]] = response.json()["data"]
            str(models[0]["id"])
            return models
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise ClientError(
                f"the server at {self.server} answers /v1/models with {status}"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ClientError(f"no server answers at {self.server}: {error}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise ClientError(f"the server at {self.server} lists no models") from error

    def _default_think_end(self) -> str:
        if self._info is None:
            return DEFAULT_THINK_END
        parameters = self._info["schema"]["anyOf"][1]["properties"]
        return str(parameters["think_end_str"]["default"])


def _counted_by_server(usage: Mapping[str, Any]) -> int | None:
    """Its own count of thinking tokens; 0 means that it does not count."""
    details = usage.get("completion_tokens_details") or {}
    return usage.get("reasoning_tokens") or details.get("reasoning_tokens") or None


def _get(http: httpx.Client, route: str) -> dict[str, Any] | None:
    """What a route says; None where there is none."""
    try:
        response = http.get(route)
        content = response.json() if response.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _tokenize(http: httpx.Client, model: str, text: str) -> list[int]:
    """The ids of a text; none where the server does not tell."""
    request = {"model": model, "prompt": text, "add_special_tokens": False}
    try:
        response = http.post("/tokenize", json=request)
        tokens = response.json()["tokens"] if response.status_code == 200 else []
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return []
    return [token for token in tokens if isinstance(token, int)]


def _message(error: openai.APIStatusError) -> str:
    """One line of what the server says."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict) and inner.get("message"):
            return str(inner["message"]).split("\n", 1)[0]
    return first_line(error)
