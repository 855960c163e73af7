"""``max_thinking_tokens``: SGLang's budget of thinking tokens, on a server with strict thinking."""

from typing import Any

import pytest
import torch
from features import FEATURES, UNCOMPILED
from oracle import Request
from processes import spelt_by
from sglang.srt.managers.io_struct import GenerateReqInput
from soft_requests import COLD, PLAIN, greedy, one_token
from spelling import TOKENS
from tiny_models import THINK_END

EXCLUDED = sorted({TOKENS.index(c) for c in "<tool_call></tool_call><|im_end|><|endoftext|>"})
"""What SGLang's parser for Qwen3 keeps out of thinking, as spelt here."""
GRAMMAR = "(w1[0-9]{2})*"
"""On a CPU, SGLang applies the filter of strict thinking only to requests with a grammar."""


@pytest.fixture
def strict_engine(house, spelling_model):
    features = {**FEATURES, "reasoning_parser": "qwen3", "enable_strict_thinking": True}
    return house.get(spelling_model, UNCOMPILED, **features)


def _generate(engine: Any, request: Request, budget: int | None, **sampling: Any) -> dict[str, Any]:
    """As ``/generate`` does: the Engine's methods do not take the field."""
    field = GenerateReqInput(
        input_ids=request.prompt,
        sampling_params={**sampling, "regex": GRAMMAR, "ignore_eos": False},
        max_thinking_tokens=budget,
        require_reasoning=True,
    )
    answers = engine.tokenizer_manager.generate_request(field, None)
    return engine.loop.run_until_complete(answers.__anext__())


def strict(budget: int | None):
    """Thinking without the excluded tokens, its forced end, and the grammar of the answer."""
    answer = spelt_by(GRAMMAR, after=THINK_END)

    def process(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
        if THINK_END in ids:
            return answer(logits, ids)
        if budget is not None and len(ids) >= budget:
            only = torch.full_like(logits, -torch.inf)
            only[THINK_END] = logits[THINK_END]
            return only
        return logits.index_fill(0, torch.tensor(EXCLUDED), -torch.inf)

    return process


def test_a_server_without_strict_thinking_refuses_it(engine):
    for sampling in (PLAIN.sampling_params(), greedy(PLAIN)):
        with pytest.raises(ValueError, match="max_thinking_tokens requires the server"):
            _generate(engine, PLAIN, 9, **sampling)


@pytest.mark.parametrize(
    ("request_", "budget", "steps", "end"),
    [
        (PLAIN, 0, 1, "think_end"),
        (PLAIN, 9, 10, "think_end"),
        (PLAIN, None, PLAIN.steps, "length"),
        (COLD, 9, 10, "think_end"),
        (COLD, 10, 10, "cold_stop"),
        (COLD, 200, 10, "cold_stop"),
    ],
)
def test_the_budget_and_cold_stop_end_thinking(strict_engine, oracle, request_, budget, steps, end):
    expected = oracle.think(request_, strict(budget))
    output = _generate(strict_engine, request_, budget, **request_.sampling_params())
    expected.check(output)
    assert (len(expected.concepts), expected.end) == (steps, end)
    assert output["meta_info"]["reasoning_tokens"] == steps


@pytest.mark.parametrize("budget", [0, 9])
def test_as_in_a_discrete_request(strict_engine, budget):
    soft, discrete = (
        _generate(strict_engine, PLAIN, budget, **sampling)
        for sampling in (one_token(PLAIN).sampling_params(), greedy(PLAIN))
    )
    assert soft["output_ids"] == discrete["output_ids"]
    assert soft["output_ids"].index(THINK_END) == budget
