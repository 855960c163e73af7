"""A server of OpenAI's interface that is no SGLang: it adds two numbers, or compares two answers.

For what a client must not take for granted; everything else is tested against the real server.
"""

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Reply = Callable[[dict[str, Any]], dict[str, Any]]
"""From a request to the answer's message; its ``soft_thinking`` goes beside it."""

_SCHEMA = {"anyOf": [{}, {"properties": {"think_end_str": {"default": "</think>"}}}]}

ENTROPIES = (0.3, 0.01, 0.02, 0.1, 0.04, 0.04, 0.0999, 0.5)
"""Of every thought, in nats, if nothing stops it."""


class ForeignServer:
    """Listens while it is a context."""

    def __init__(self, reply: Reply, context: int | None = None, with_plugin: bool = False) -> None:
        self.requests: list[dict[str, Any]] = []
        """Those of chat completions."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known: dict[str, Any] = {
                    "/v1/models": {"data": [{"id": "org/adder", "max_model_len": context}]}
                }
                if with_plugin:
                    known["/soft_thinking_info"] = {"version": "0.1.0", "schema": _SCHEMA}
                self._send(200 if self.path in known else 404, known.get(self.path, {}))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                if self.path != "/v1/chat/completions":
                    self._send(404, {})
                    return
                request = json.loads(body)
                server.requests.append(request)
                self._send(200, _completion(reply(request)))

            def _send(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "ForeignServer":
        Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def _completion(message: dict[str, Any]) -> dict[str, Any]:
    beside = {name: message.pop(name) for name in ("soft_thinking",) if name in message}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "org/adder",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", **message},
                **beside,
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 9,
            "total_tokens": 14,
            "completion_tokens_details": {"reasoning_tokens": 6},
        },
    }


def prompt_of(request: dict[str, Any]) -> str:
    """What the user said."""
    (message,) = request["messages"]
    return str(message["content"])


def sum_of(request: dict[str, Any]) -> int:
    """Of the numbers in the question."""
    return sum(int(number) for number in re.findall(r"\d+", prompt_of(request)))


def add(request: dict[str, Any]) -> dict[str, Any]:
    """Think in the text."""
    return {"content": f"I add.</think>The answer is \\boxed{{{sum_of(request)}}}."}


def add_apart(request: dict[str, Any]) -> dict[str, Any]:
    """Think in a field of its own, as vLLM does."""
    return {"reasoning_content": "I add.", "content": f"\\boxed{{{sum_of(request)}}}"}


def add_softly(request: dict[str, Any]) -> dict[str, Any]:
    """Think with `ENTROPIES` and Cold Stop, if the request asks for it."""
    asked = request["soft_thinking"]
    if not asked:
        return add(request)
    entropies, run, longest, end = [], 0, 0, "think_end"
    for entropy in ENTROPIES:
        entropies.append(entropy)
        run = run + 1 if entropy < asked["early_stopping_entropy_threshold"] else 0
        longest = max(longest, run)
        if run and run == asked.get("early_stopping_length_threshold"):
            end = "cold_stop"
            break
    told = {"steps": len(entropies), "end": end, "mean_entropy": sum(entropies) / len(entropies)}
    return {
        **add(request),
        "soft_thinking": {**told, "longest_run": longest, "entropies": entropies},
    }


def add_closed(request: dict[str, Any]) -> dict[str, Any]:
    """As the plugin where the prompt has closed the thought already."""
    told = {"steps": 0, "end": "closed", "mean_entropy": 0.0, "longest_run": 0, "entropies": []}
    return {"content": f"The answer is \\boxed{{{sum_of(request)}}}.", "soft_thinking": told}


def judge(request: dict[str, Any]) -> dict[str, Any]:
    """Compare the texts of the two answers."""
    prompt = prompt_of(request)
    truth = re.search(r"True answer:\n(.*)\n", prompt)
    answer = re.search(r"Student's answer:\n(.*)\n", prompt)
    assert truth and answer
    same = truth[1] in answer[1]
    return {"content": f"INCORRECT? Let me see.</think>\n{'CORRECT' if same else 'INCORRECT'}"}
