"""What ends a request while it thinks: stop strings, stop ids, EOS; and the same in its answer."""

from dataclasses import replace
from typing import Any

import pytest
from oracle import Request
from processes import biased
from soft_requests import COLD, NATURAL, PLAIN, TOWARDS_THE_END, greedy, one_token
from spelling import TOKENS
from tiny_models import EOS, THINK_END

STOPS = {
    "id": ({"stop_token_ids": [233]}, "w233", 233),
    "one of several ids": ({"stop_token_ids": [7, 8, 233]}, "w233", 233),
    "word": ({"stop": "w233"}, "w233", "w233"),
    "across tokens": ({"stop": ["nowhere", "Kw23"]}, "Kw23", "Kw23"),
    "inside a token": ({"stop": ["233"]}, "233", "233"),
    "regex": ({"stop_regex": "K.*3\\d"}, "Kw233", "K.*3\\d"),
}
"""The fields, the text that stops PLAIN's thinking and COLD's answer, and what SGLang reports."""


def _text(ids: list[int]) -> str:
    return "".join(TOKENS[token] for token in ids if token != EOS)


def _generate(engine: Any, request: Request, **more: Any) -> dict[str, Any]:
    return engine.generate(
        input_ids=request.prompt,
        sampling_params=request.sampling_params(**{"ignore_eos": False, **more}),
    )


def _end(output: dict[str, Any]) -> tuple[dict[str, Any], str]:
    meta = output["meta_info"]
    return meta["finish_reason"], meta["soft_thinking"]["end"]


@pytest.mark.parametrize("trim", [True, False], ids=["trimmed", "untrimmed"])
@pytest.mark.parametrize(
    ("request_", "end"), [(PLAIN, "stop"), (COLD, "cold_stop")], ids=["thinking", "answer"]
)
@pytest.mark.parametrize("name", STOPS)
def test_a_stop_ends_the_request(engine, oracle, name, request_, end, trim):
    fields, text, matched = STOPS[name]
    expected = oracle.think(request_)
    length = next(n for n in range(request_.steps) if text in _text(expected.ids[:n]))
    assert (THINK_END in expected.ids[:length]) == (request_ is COLD)
    output = _generate(engine, request_, no_stop_trim=not trim, **fields)
    expected.check(output, length)
    assert _end(output) == ({"type": "stop", "matched": matched}, end)
    whole = _text(expected.ids[:length])
    before = whole[: whole.index(text)]
    # SGLang does not trim what a regular expression matched
    assert output["text"] == (before if trim and name != "regex" else before + text)


@pytest.mark.parametrize("name", STOPS)
def test_as_in_a_discrete_request(engine, name):
    fields = {**STOPS[name][0], "logit_bias": {"233": 2.0, "47": 2.0}}
    soft = _generate(engine, one_token(PLAIN), **fields)
    discrete = engine.generate(
        input_ids=PLAIN.prompt, sampling_params=greedy(PLAIN, **fields, ignore_eos=False)
    )
    assert soft["meta_info"]["finish_reason"] == discrete["meta_info"]["finish_reason"]
    assert soft["meta_info"]["finish_reason"]["type"] == "stop"
    assert (soft["output_ids"], soft["text"]) == (discrete["output_ids"], discrete["text"])


@pytest.mark.parametrize(
    ("field", "matched"), [({"stop_token_ids": [3]}, 3), ({"stop": "</think>"}, "</think>")]
)
def test_the_end_of_thinking_may_stop_the_request(engine, oracle, field, matched):
    towards = {"logit_bias": TOWARDS_THE_END}
    for request, more, process, end in [
        (COLD, {}, None, "cold_stop"),
        (NATURAL, towards, biased({THINK_END: TOWARDS_THE_END["3"]}), "think_end"),
    ]:
        expected = oracle.think(request, process)
        output = _generate(engine, request, **field, **more)
        expected.check(output, len(expected.concepts))
        assert _end(output) == ({"type": "stop", "matched": matched}, end)


@pytest.mark.parametrize(
    ("bias", "end", "fields"),
    [
        (3.0, "eos", {}),
        (3.0, "stop", {"stop_token_ids": [EOS]}),
        (2.5, "cold_stop", {}),
    ],
    ids=["thinking", "named as a stop id", "answer"],
)
def test_eos(engine, oracle, bias, end, fields):
    expected = oracle.think(COLD, biased({EOS: bias}))
    length = expected.ids.index(EOS) + 1
    output = _generate(engine, COLD, logit_bias={str(EOS): bias}, **fields)
    expected.check(output, length)
    assert _end(output) == ({"type": "stop", "matched": EOS}, end)
    assert (THINK_END in output["output_ids"]) == (end == "cold_stop")


def test_eos_may_be_the_end_of_thinking(engine):
    sampling = COLD.sampling_params(ignore_eos=False)
    sampling["soft_thinking"] |= {"think_end_str": "<eos>"}
    output = engine.generate(input_ids=COLD.prompt, sampling_params=sampling)
    assert output["output_ids"][-1] == EOS
    assert len(output["output_ids"]) == COLD.length_threshold
    assert _end(output) == ({"type": "stop", "matched": EOS}, "cold_stop")


# Stops that sleep while the request thinks.

SLEEPING = replace(PLAIN, budget=12)
"""Its thought has every stop of :data:`STOPS`, and so has its answer."""


def _sleeping(request: Request, **more: Any) -> dict[str, Any]:
    sampling = request.sampling_params(**{"ignore_eos": False, **more})
    sampling["soft_thinking"] |= {"stop_in_thinking": False}
    return sampling


@pytest.mark.parametrize("trim", [True, False], ids=["trimmed", "untrimmed"])
@pytest.mark.parametrize("name", STOPS)
def test_the_first_match_of_the_answer_counts(engine, oracle, name, trim):
    fields, text, matched = STOPS[name]
    expected = oracle.run(SLEEPING)
    start = len(expected.concepts)
    assert expected.end == "budget" and text in _text(expected.ids[:start])
    length = next(n for n in range(start, SLEEPING.steps) if text in _text(expected.ids[start:n]))
    sampling = _sleeping(SLEEPING, no_stop_trim=not trim, **fields)
    output = engine.generate(input_ids=SLEEPING.prompt, sampling_params=sampling)
    assert output["output_ids"] == expected.ids[:length]
    assert _end(output) == ({"type": "stop", "matched": matched}, "budget")
    whole = _text(expected.ids[:length])
    before = whole[: whole.index(text, len(_text(expected.ids[:start])))]
    assert output["text"] == (before if trim and name != "regex" else before + text)

    stream = engine.generate(input_ids=SLEEPING.prompt, sampling_params=sampling, stream=True)
    *_, last = stream
    assert (last["text"], last["output_ids"]) == (output["text"], output["output_ids"])
    assert last["meta_info"]["finish_reason"] == output["meta_info"]["finish_reason"]


def test_as_often_as_it_is_said(engine):
    """Without the parameter, and for a neighbour, a stop ends the thought as ever."""
    fields = STOPS["word"][0]
    samplings = [
        _sleeping(SLEEPING, **fields),
        SLEEPING.sampling_params(ignore_eos=False, **fields),
        greedy(PLAIN, **fields, ignore_eos=False),
    ]
    prompts = [PLAIN.prompt] * len(samplings)
    outputs = engine.generate(input_ids=prompts, sampling_params=samplings)
    assert [_end(output)[1] for output in outputs[:2]] == ["budget", "stop"]
    for output, sampling in zip(outputs, samplings, strict=True):
        alone = engine.generate(input_ids=PLAIN.prompt, sampling_params=sampling)
        assert (alone["text"], alone["output_ids"]) == (output["text"], output["output_ids"])


@pytest.mark.parametrize("stop", ["3</think>w1", "</think>"])
def test_a_match_that_reaches_into_the_thought_is_none(engine, oracle, stop):
    sampling = _sleeping(SLEEPING, stop=stop, skip_special_tokens=False)
    output = engine.generate(input_ids=SLEEPING.prompt, sampling_params=sampling)
    assert output["output_ids"] == oracle.run(SLEEPING).ids
    assert stop in output["text"]
    assert output["meta_info"]["finish_reason"]["type"] == "length"


def test_the_end_of_thinking_does_not_stop_the_request(engine, oracle):
    sampling = _sleeping(SLEEPING, stop_token_ids=[THINK_END])
    output = engine.generate(input_ids=SLEEPING.prompt, sampling_params=sampling)
    assert output["output_ids"] == oracle.run(SLEEPING).ids


@pytest.mark.parametrize("fields", [{}, {"stop_token_ids": [EOS, 7]}])
def test_eos_ends_a_thought_still(engine, oracle, fields):
    expected = oracle.think(COLD, biased({EOS: 3.0}))
    sampling = _sleeping(COLD, logit_bias={str(EOS): 3.0}, **fields)
    output = engine.generate(input_ids=COLD.prompt, sampling_params=sampling)
    expected.check(output, expected.ids.index(EOS) + 1)
    assert output["meta_info"]["soft_thinking"]["end"] in ("eos", "stop")
