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
"""From a request to the answer's message."""


class ForeignServer:
    """Listens while it is a context."""

    def __init__(self, reply: Reply, context: int | None = None) -> None:
        self.requests: list[dict[str, Any]] = []
        """Those of chat completions."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == "/v1/models"
                models = {"data": [{"id": "org/adder", "max_model_len": context}]}
                self._send(200 if known else 404, models if known else {})

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


def judge(request: dict[str, Any]) -> dict[str, Any]:
    """Compare the texts of the two answers."""
    prompt = prompt_of(request)
    truth = re.search(r"True answer:\n(.*)\n", prompt)
    answer = re.search(r"Student's answer:\n(.*)\n", prompt)
    assert truth and answer
    same = truth[1] in answer[1]
    return {"content": f"INCORRECT? Let me see.</think>\n{'CORRECT' if same else 'INCORRECT'}"}
