"""What an Engine's result becomes, where it depends on the answer's own ``soft_thinking``."""

import asyncio
from types import SimpleNamespace

import pytest

from soft_sglang.eval.client import Question, Sampling
from soft_sglang.eval.engine_client import EngineClient

THINK_END = 7
TEXT = "a</think>b"
QUESTION = Question("q", Sampling(0.6, 0.95, 30, 0.001, 100), {"policy": "soft_thinking"}, seed=0)


class Tokenizer:
    def encode(self, _text, add_special_tokens):
        return [THINK_END]

    def apply_chat_template(self, _messages, **_):
        return [1, 2]

    def decode(self, _ids, **_):
        return "<user>q"


@pytest.mark.parametrize(
    ("end", "thinking", "answer", "thinking_tokens"),
    [("think_end", "a", "b", 2), ("closed", "", TEXT, 0)],
)
def test_where_the_thought_ends(end, thinking, answer, thinking_tokens):
    own = {"steps": thinking_tokens, "end": end, "mean_entropy": 0.0, "longest_run": 0}

    async def async_generate(**_):
        meta = {"finish_reason": {"type": "stop"}, "completion_tokens": 3, "soft_thinking": own}
        return {"text": TEXT, "output_ids": [5, THINK_END, 6], "meta_info": meta}

    manager = SimpleNamespace(tokenizer=Tokenizer(), context_len=100)
    engine = SimpleNamespace(tokenizer_manager=manager, async_generate=async_generate)
    client = EngineClient(engine, "m", digest=False)
    output = asyncio.run(client.ask(QUESTION))
    assert (output.thinking, output.answer) == (thinking, answer)
    assert (output.thinking_tokens, output.tokens) == (thinking_tokens, 3)
    assert output.soft_thinking == {**own, "entropies": None}
