"""Log-probabilities are those of the emitted ids, at the request's temperature, as in SGLang."""

import math
from typing import Any

import pytest
import torch
from soft_requests import COLD, PLAIN, greedy, one_token
from tiny_models import THINK_END

TOLERANCE = 1e-4
"""Of a log-probability: float32 logits, at a temperature of 0.7."""
ASKED = {
    "return_logprob": True,
    "top_logprobs_num": 4,
    "token_ids_logprob": [THINK_END, 233, 7],
    "logprob_start_len": 0,
}


def _values(entries: list[list[Any]]) -> list[float]:
    return [value for value, _, _ in entries]


def _ids(entries: list[list[Any]]) -> list[int]:
    return [token for _, token, _ in entries]


@pytest.mark.parametrize("request_", [PLAIN, COLD], ids=["thinking", "cold stop"])
def test_they_are_of_the_emitted_ids(engine, oracle, request_):
    expected = oracle.think(request_)
    output = engine.generate(
        input_ids=request_.prompt, sampling_params=request_.sampling_params(), **ASKED
    )
    expected.check(output)
    meta = output["meta_info"]
    emitted = meta["output_token_logprobs"]
    assert _ids(emitted) == output["output_ids"]
    assert _values(emitted) == pytest.approx(
        [float(p[token]) for p, token in zip(expected.logprobs, expected.ids, strict=True)],
        abs=TOLERANCE,
    )
    for got, logprobs in zip(meta["output_top_logprobs"], expected.logprobs, strict=True):
        top = logprobs.topk(4)
        assert _ids(got) == top.indices.tolist()
        assert _values(got) == pytest.approx(top.values.tolist(), abs=TOLERANCE)
    for got, logprobs in zip(meta["output_token_ids_logprobs"], expected.logprobs, strict=True):
        assert _ids(got) == ASKED["token_ids_logprob"]
        assert _values(got) == pytest.approx(logprobs[_ids(got)].tolist(), abs=TOLERANCE)


def test_the_forced_end_of_thinking_has_its_own_probability(engine, oracle):
    expected = oracle.think(COLD)
    forced = expected.ids.index(THINK_END)
    heaviest = float(expected.logprobs[forced].max())
    own = float(expected.logprobs[forced][THINK_END])
    assert own < heaviest - 1
    output = engine.generate(
        input_ids=COLD.prompt, sampling_params=COLD.sampling_params(), return_logprob=True
    )
    value, token, _ = output["meta_info"]["output_token_logprobs"][forced]
    assert (token, value) == (THINK_END, pytest.approx(own, abs=TOLERANCE))


def test_the_answer_has_its_own_temperature(engine, oracle):
    """Greedy in the oracle and here, but at a temperature of its own: top-k 1."""
    soft = COLD.sampling_params()
    soft["soft_thinking"] |= {"after_thinking_temperature": 0.4, "after_thinking_top_k": 1}
    output = engine.generate(input_ids=COLD.prompt, sampling_params=soft, return_logprob=True)
    expected = oracle.think(COLD)
    thinking = len(expected.concepts)
    assert output["output_ids"] == expected.ids
    answer = [
        float(torch.log_softmax(p / 0.4, -1)[token])
        for p, token in zip(expected.logprobs[thinking:], expected.ids[thinking:], strict=True)
    ]
    values = _values(output["meta_info"]["output_token_logprobs"])
    assert values[thinking:] == pytest.approx(answer, abs=2 * TOLERANCE)


def test_neighbours_have_their_own(engine):
    """Soft and discrete, with and without log-probabilities, in one batch."""
    samplings = [COLD.sampling_params(), greedy(COLD), PLAIN.sampling_params(), greedy(PLAIN)]
    prompts = [COLD.prompt, COLD.prompt[::-1], PLAIN.prompt[1:], PLAIN.prompt]
    asked = {"return_logprob": [True, True, False, True], "top_logprobs_num": [2, 3, 0, 0]}
    together = engine.generate(input_ids=prompts, sampling_params=samplings, **asked)
    for row, output in enumerate(together):
        alone = engine.generate(
            input_ids=prompts[row],
            sampling_params=samplings[row],
            **{name: values[row] for name, values in asked.items()},
        )
        assert output["output_ids"] == alone["output_ids"]
        meta, before = output["meta_info"], alone["meta_info"]
        assert ("output_token_logprobs" in meta) == asked["return_logprob"][row]
        if asked["return_logprob"][row]:
            got, want = meta["output_token_logprobs"], before["output_token_logprobs"]
            assert _ids(got) == _ids(want)
            assert _values(got) == pytest.approx(_values(want), abs=TOLERANCE)
        if asked["top_logprobs_num"][row]:
            got, want = meta["output_top_logprobs"], before["output_top_logprobs"]
            assert [_ids(step) for step in got] == [_ids(step) for step in want]


def test_concepts_of_one_token_have_those_of_greedy_decoding(engine):
    """At temperature 1, which is greedy decoding's for log-probabilities."""
    sampling = one_token(PLAIN).sampling_params(temperature=1.0)
    soft = engine.generate(input_ids=PLAIN.prompt, sampling_params=sampling, **ASKED)
    discrete = engine.generate(input_ids=PLAIN.prompt, sampling_params=greedy(PLAIN), **ASKED)
    assert soft["output_ids"] == discrete["output_ids"]
    for name in ("output_top_logprobs", "output_token_ids_logprobs"):
        for got, want in zip(soft["meta_info"][name], discrete["meta_info"][name], strict=True):
            assert _ids(got) == _ids(want)
            assert _values(got) == pytest.approx(_values(want), abs=TOLERANCE)


def test_the_prompt_has_those_of_a_discrete_request(engine):
    for start in (0, 2):
        asked = {**ASKED, "logprob_start_len": start}
        soft, discrete = (
            engine.generate(input_ids=PLAIN.prompt, sampling_params=sampling, **asked)["meta_info"]
            for sampling in (PLAIN.sampling_params(), greedy(PLAIN))
        )
        for name in ("input_token_logprobs", "input_top_logprobs", "input_token_ids_logprobs"):
            assert _rounded(soft[name]) == _rounded(discrete[name])
            assert len(soft[name]) == len(PLAIN.prompt) - start


def test_a_request_for_no_token_gets_those_of_its_prompt(engine):
    soft, discrete = (
        engine.generate(input_ids=PLAIN.prompt, sampling_params=sampling, **ASKED)
        for sampling in (PLAIN.sampling_params(max_new_tokens=0), greedy(PLAIN, max_new_tokens=0))
    )
    assert soft["output_ids"] == discrete["output_ids"] == []
    for name in ("input_token_logprobs", "output_token_ids_logprobs"):
        assert _rounded(soft["meta_info"][name]) == _rounded(discrete["meta_info"][name])
    assert soft["meta_info"]["soft_thinking"]["steps"] == 0


def _rounded(value: Any) -> Any:
    """Nested lists with their numbers rounded to what two batch shapes agree on."""
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) and math.isfinite(value) else value
