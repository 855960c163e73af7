"""Penalties, logit bias and ``min_new_tokens``: concepts are made of what they leave.

One request at a time: what SGLang counts under overlap scheduling is shifted by others' prefills.
"""

import pytest
import torch
from processes import biased, penalised
from soft_requests import COLD, PLAIN, greedy, one_token
from tiny_models import EOS, THINK_END

PROMPT = PLAIN.prompt
WATCHED = [THINK_END, EOS, 148]
"""Ids whose log-probabilities are compared too."""
FIELDS = {
    "frequency": ({"frequency_penalty": 1.5}, penalised(PROMPT, frequency=1.5)),
    "presence": ({"presence_penalty": 2.0}, penalised(PROMPT, presence=2.0)),
    "repetition": ({"repetition_penalty": 1.6}, penalised(PROMPT, repetition=1.6)),
    "a reward": ({"frequency_penalty": -0.4}, penalised(PROMPT, frequency=-0.4)),
    "all three": (
        {"frequency_penalty": 0.5, "presence_penalty": 0.7, "repetition_penalty": 1.3},
        penalised(PROMPT, 0.5, 0.7, 1.3),
    ),
    "bias": ({"logit_bias": {"148": -3.0, "47": 0.5}}, biased({148: -3.0, 47: 0.5})),
    "bias to the end": ({"logit_bias": {"3": 2.0}}, biased({THINK_END: 2.0})),
    "bias against the end": ({"logit_bias": {"3": -20}}, biased({THINK_END: -20.0})),
    "eos": ({"logit_bias": {"1": 3.0}}, biased({EOS: 3.0})),
}
"""Fields of a request by name, and what they do to its logits."""


@pytest.mark.parametrize("request_", [PLAIN, COLD], ids=["thinking", "cold stop"])
@pytest.mark.parametrize("name", FIELDS)
def test_concepts_and_answer_see_the_changed_logits(engine, oracle, name, request_):
    fields, process = FIELDS[name]
    expected, unchanged = oracle.think(request_, process), oracle.think(request_)
    assert not torch.allclose(expected.logprobs[-1], unchanged.logprobs[-1], atol=0.01)
    output = engine.generate(
        input_ids=PROMPT,
        sampling_params=request_.sampling_params(**fields),
        return_logprob=True,
        token_ids_logprob=WATCHED,
    )
    expected.check(output)
    watched = output["meta_info"]["output_token_ids_logprobs"]
    for seen, logprobs in zip(watched, expected.logprobs, strict=True):
        assert [value for value, _, _ in seen] == pytest.approx(
            logprobs[WATCHED].tolist(), abs=1e-3
        )


@pytest.mark.parametrize("name", FIELDS)
def test_concepts_of_one_token_are_greedy_decoding(engine, name):
    fields, _ = FIELDS[name]
    soft, discrete = (
        engine.generate(input_ids=PROMPT, sampling_params=sampling)
        for sampling in (one_token(PLAIN).sampling_params(**fields), greedy(PLAIN, **fields))
    )
    assert soft["output_ids"] == discrete["output_ids"]


def test_an_ignored_eos_is_a_thought_like_others(engine, oracle):
    expected = oracle.think(PLAIN, biased({EOS: 3.0}))
    output = engine.generate(
        input_ids=PROMPT, sampling_params=PLAIN.sampling_params(logit_bias={"1": 3.0})
    )
    assert EOS in expected.ids[:-1]
    expected.check(output)


def test_min_new_tokens_holds_eos_and_stop_ids_back(engine, oracle):
    stop, least = 233, 17
    process = biased({EOS: 1.0, stop: 1.0}, least, (EOS, stop))
    expected = oracle.think(COLD, process)
    length = next(i for i, token in enumerate(expected.ids) if token in (EOS, stop)) + 1
    output = engine.generate(
        input_ids=PROMPT,
        sampling_params=COLD.sampling_params(
            min_new_tokens=least,
            stop_token_ids=[stop],
            logit_bias={str(EOS): 1.0, str(stop): 1.0},
            ignore_eos=False,
        ),
    )
    assert COLD.length_threshold < least < length < COLD.steps  # the end of thinking is not held
    expected.check(output, length)
    assert output["meta_info"]["finish_reason"]["type"] == "stop"


def test_cold_stop_waits_for_min_new_tokens_where_the_end_is_a_stop_id(engine, oracle):
    least = 15
    expected = oracle.think(COLD, biased({}, least, (EOS, THINK_END)))
    output = engine.generate(
        input_ids=PROMPT,
        sampling_params=COLD.sampling_params(
            min_new_tokens=least, stop_token_ids=[THINK_END], ignore_eos=False
        ),
    )
    assert expected.ids.index(THINK_END) == least
    expected.check(output, least + 1)
    assert output["meta_info"]["soft_thinking"]["end"] == "cold_stop"
