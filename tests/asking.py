"""Asking the server, and checking what it says about soft thinking."""

from typing import Any

import openai
import pytest
from tolerances import BUNDLED_TRACE_WEIGHT
from traces import close

MODEL = "soft-sglang-bundled"
QUESTION = "What is 7*20?"
PROMPT = f"<|user|>{QUESTION}<|assistant|><think>"
"""The same as the chat template writes it."""
EOS = "<|end|>"
THINK_END = "</think>"

MAX_TOKENS = 200
WIDE = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""No filter: every concept has as many tokens as it may."""
WIDTH = 5
TRACED = {"max_topk": WIDTH, "return_concepts": True, "after_thinking_temperature": 0}
"""Deterministic: thinking draws nothing, and the answer is greedy."""
COLD = {
    **TRACED,
    "early_stopping_entropy_threshold": 100,
    "early_stopping_length_threshold": 5,
}
"""Cold Stop at the fifth step."""

SUMMARY = {"steps", "end", "mean_entropy", "longest_run"}
_ABSENT = object()


def chat(client: openai.OpenAI, soft: Any = _ABSENT, question: str = QUESTION, **own: Any) -> Any:
    """Ask by chat."""
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(messages=messages, **_arguments(soft, own))


def complete(client: openai.OpenAI, soft: Any = _ABSENT, prompt: Any = PROMPT, **own: Any) -> Any:
    """Ask for a completion."""
    return client.completions.create(prompt=prompt, **_arguments(soft, own))


def _arguments(soft: Any, own: dict[str, Any]) -> dict[str, Any]:
    extra = {name: WIDE[name] for name in ("top_k", "min_p")}
    if soft is not _ABSENT:
        extra["soft_thinking"] = soft
    extra.update(own.pop("extra_body", {}))
    sampling = {name: WIDE[name] for name in ("temperature", "top_p")}
    return {"model": MODEL, "max_tokens": MAX_TOKENS, "extra_body": extra, **sampling, **own}


def answer_of(choice: Any) -> dict[str, Any] | None:
    """``soft_thinking`` of a choice, streamed or not; None if it has none."""
    return choice.to_dict().get("soft_thinking")


def check_answer(answer: dict[str, Any] | None, end: str, width: int = WIDTH) -> None:
    """Check an answer with concepts against the contract."""
    assert answer is not None
    assert set(answer) == SUMMARY | {"concepts"}
    assert answer["end"] == end
    assert answer["mean_entropy"] >= 0
    assert answer["steps"] == len(answer["concepts"]) > 0
    for concept in answer["concepts"]:
        ids, weights = zip(*concept, strict=True)
        assert len(set(ids)) == len(ids) <= width
        assert all(isinstance(token, int) for token in ids)
        assert all(weight > 0 for weight in weights)
        assert list(weights) == sorted(weights, reverse=True)
        assert sum(weights) == pytest.approx(1, abs=1e-5)


def same_trace(got: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two answers with concepts say the same; weights may differ by rounding."""
    return (
        (got["steps"], got["end"]) == (expected["steps"], expected["end"])
        and got["mean_entropy"] == pytest.approx(expected["mean_entropy"], **BUNDLED_TRACE_WEIGHT)
        and close(got["concepts"], expected["concepts"], BUNDLED_TRACE_WEIGHT)
    )
