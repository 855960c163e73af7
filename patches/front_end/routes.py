"""The routes of SGLang's HTTP server that serve a model, and what each does with the field."""

import os
from collections.abc import Mapping

from soft_sglang.patches.front_end.apis import (
    ANTHROPIC,
    NATIVE,
    OLLAMA,
    OPENAI,
    RESPONSES,
    VERTEX,
    Api,
)

IN_THE_MODEL = ("/v1/chat/completions", "/v1/completions", "/invocations")
"""Their request models take the field: see ``openai_protocol`` and ``openai_answers``."""

TRANSCRIPTIONS = "/v1/audio/transcriptions"
"""Has a form instead of JSON."""

NOTHING_GENERATED: Mapping[str, Api] = {
    "/encode": NATIVE,
    "/classify": NATIVE,
    "/v1/embeddings": OPENAI,
    "/v1/classify": OPENAI,
    "/v1/score": OPENAI,
    "/v1/rerank": OPENAI,
    "/v1/decisions": OPENAI,
    "/v1/systemone": OPENAI,
}
"""Routes that refuse the field."""

TOKENS_ONLY = (
    "/tokenize",
    "/v1/tokenize",
    "/detokenize",
    "/v1/detokenize",
    "/v1/messages/count_tokens",
)
"""Routes on which the field is of no consequence: a client may send them what it will ask later."""


def generating_routes() -> Mapping[str, Api]:
    """Routes that generate text and know nothing of the field, by path.

    Some paths are SGLang's to choose, from the environment.
    """
    return {
        "/generate": NATIVE,
        "/v1/responses": RESPONSES,
        "/v1/messages": ANTHROPIC,
        os.environ.get("SGLANG_OLLAMA_CHAT_ROUTE", "/api/chat"): OLLAMA,
        os.environ.get("SGLANG_OLLAMA_GENERATE_ROUTE", "/api/generate"): OLLAMA,
        os.environ.get("AIP_PREDICT_ROUTE", "/vertex_generate"): VERTEX,
    }
