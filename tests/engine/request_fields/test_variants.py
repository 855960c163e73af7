"""What another server may choose: the grammar library, the temperature of log-probabilities."""

import pytest
import regex
import torch
from features import UNCOMPILED
from grammars import GRAMMARS, LONG, SCHEMA, THROUGH_THINKING
from processes import spelt_by
from soft_requests import COLD, PLAIN
from tiny_models import EOS


@pytest.fixture
def engine(house, spelling_model):
    """With llguidance, which in SGLang 0.5.21 does not work beside a reasoning parser."""
    return house.get(
        spelling_model,
        {**UNCOMPILED, "SGLANG_RETURN_ORIGINAL_LOGPROB": "1"},
        grammar_backend="llguidance",
        constrained_json_disable_any_whitespace=True,
    )


@pytest.mark.parametrize("name", THROUGH_THINKING)
def test_llguidance_holds_for_thinking(engine, oracle, name):
    pattern, end = THROUGH_THINKING[name]
    expected = oracle.think(COLD, spelt_by(pattern))
    output = engine.generate(
        input_ids=COLD.prompt, sampling_params=COLD.sampling_params(**LONG, regex=pattern)
    )
    expected.check(output, expected.ids.index(EOS) + 1)
    assert expected.end == end


def test_llguidance_and_a_schema(engine):
    output = engine.generate(
        input_ids=PLAIN.prompt, sampling_params=PLAIN.sampling_params(**LONG, json_schema=SCHEMA)
    )
    assert regex.fullmatch(GRAMMARS["json_schema"][1], output["text"]), output["text"]
    assert output["meta_info"]["soft_thinking"]["end"] == "eos"


def test_log_probabilities_before_temperature(engine, oracle):
    expected = oracle.think(COLD)
    output = engine.generate(
        input_ids=COLD.prompt, sampling_params=COLD.sampling_params(), return_logprob=True
    )
    expected.check(output)
    thinking = len(expected.concepts)
    for step, (value, token, _) in enumerate(output["meta_info"]["output_token_logprobs"]):
        scale = COLD.temperature if step < thinking else 1.0
        original = torch.log_softmax(expected.logprobs[step] * scale, -1)
        assert token == expected.ids[step]
        assert value == pytest.approx(float(original[token]), abs=1e-4)
