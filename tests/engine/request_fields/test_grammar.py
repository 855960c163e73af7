"""Structured answers: the grammar starts after thinking, and thinking does not notice it."""

import json
from typing import Any

import pytest
import regex
from grammars import GRAMMARS, LONG, SCHEMA, THROUGH_THINKING
from oracle import Request
from processes import spelt_by
from soft_requests import COLD, NATURAL, PLAIN, TOWARDS_THE_END, greedy
from tiny_models import EOS, THINK_END
from traces import close

THOUGHTS = {
    "cold_stop": (COLD, {}),
    "think_end": (NATURAL, {"logit_bias": TOWARDS_THE_END}),
}
"""By how they end."""


def _generate(engine: Any, request: Request, reasoning: bool = True, **more: Any) -> dict[str, Any]:
    return engine.generate(
        input_ids=request.prompt,
        sampling_params=request.sampling_params(**more),
        require_reasoning=reasoning,
    )


@pytest.mark.parametrize("end", THOUGHTS)
@pytest.mark.parametrize("field", GRAMMARS)
def test_the_grammar_starts_after_thinking(engine, field, end):
    request, more = THOUGHTS[end]
    grammar, pattern = GRAMMARS[field]
    free = _generate(engine, request, **more)["meta_info"]["soft_thinking"]
    output = _generate(engine, request, **{**more, **LONG, field: grammar})
    soft = output["meta_info"]["soft_thinking"]
    assert close(soft["concepts"], free["concepts"])
    assert (soft["steps"], soft["end"]) == (free["steps"], free["end"]) == (free["steps"], end)
    _, _, answer = output["text"].partition("</think>")
    assert regex.fullmatch(pattern, answer), answer
    assert output["meta_info"]["reasoning_tokens"] == soft["steps"]
    assert output["meta_info"]["finish_reason"] == {"type": "stop", "matched": EOS}
    if field == "json_schema":
        assert json.loads(answer).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("request_", "text", "end"),
    [(PLAIN, "w233", "think_end"), (COLD, "#", "cold_stop")],
    ids=["natural", "cold stop"],
)
def test_the_grammar_starts_after_the_requests_own_end(engine, request_, text, end):
    grammar, pattern = GRAMMARS["regex"]
    sampling = request_.sampling_params(**LONG, regex=grammar)
    sampling["soft_thinking"] |= {"think_end_str": text}
    output = engine.generate(
        input_ids=request_.prompt, sampling_params=sampling, require_reasoning=True
    )
    soft = output["meta_info"]["soft_thinking"]
    assert soft["end"] == end
    assert regex.fullmatch(pattern, output["text"].partition(text)[2])
    assert output["meta_info"]["reasoning_tokens"] == soft["steps"]


MARKERS = {
    "natural": (PLAIN, "Kw233", {}, "think_end"),
    "cold stop": (COLD, "#!#", {}, "cold_stop"),
    "cold stop, words before": (COLD, "#!#", {"cold_stop_str": "so,#!#"}, "cold_stop"),
    "budget": (
        PLAIN,
        "</think>",
        {"cold_stop_str": "so</think>", "max_thinking_steps": 3},
        "budget",
    ),
    "first token": (PLAIN, "Kw233", {"think_end_first_token": True}, "think_end"),
}


@pytest.mark.parametrize("name", MARKERS)
def test_the_grammar_starts_after_a_marker_of_several_tokens(engine, name):
    request, text, more, end = MARKERS[name]
    grammar, pattern = GRAMMARS["regex"]
    sampling = request.sampling_params(**LONG, regex=grammar)
    sampling["soft_thinking"] |= {"think_end_str": text, **more}
    output = engine.generate(
        input_ids=request.prompt, sampling_params=sampling, require_reasoning=True
    )
    soft = output["meta_info"]["soft_thinking"]
    thought, _, answer = output["text"].partition(text)
    assert soft["end"] == end
    assert regex.fullmatch(pattern, answer), output["text"]
    assert ("so" in thought) == ("cold_stop_str" in more)
    # the first-token form leaves the rest of the marker to the model
    rest = 1 if name == "first token" else 0
    assert output["meta_info"]["reasoning_tokens"] == soft["steps"] + rest


def test_the_answer_is_the_oracles(engine, oracle):
    grammar, pattern = GRAMMARS["regex"]
    expected = oracle.think(COLD, spelt_by(pattern, after=THINK_END))
    output = _generate(engine, COLD, **LONG, regex=grammar)
    expected.check(output, expected.ids.index(EOS) + 1)


@pytest.mark.parametrize("name", THROUGH_THINKING)
def test_without_reasoning_the_grammar_holds_for_thinking_too(engine, oracle, name):
    """Cold Stop, due after 10 tokens, waits until the grammar allows the end of thinking."""
    pattern, end = THROUGH_THINKING[name]
    expected = oracle.think(COLD, spelt_by(pattern))
    output = _generate(engine, COLD, reasoning=False, **LONG, regex=pattern)
    expected.check(output, expected.ids.index(EOS) + 1)
    assert expected.end == end
    assert regex.fullmatch(pattern, output["text"])
    assert max(len(concept) for concept in expected.concepts) == COLD.max_topk


def test_neighbours_with_and_without_grammars(engine):
    regex_, schema = {"regex": GRAMMARS["regex"][0]}, {"json_schema": SCHEMA}
    calls = {
        True: [COLD.sampling_params(**LONG, **field) for field in (regex_, {}, schema)],
        False: [greedy(COLD, **LONG, **schema), greedy(COLD), COLD.sampling_params()],
    }
    for reasoning, samplings in calls.items():  # a field of the whole call
        together = engine.generate(
            input_ids=[COLD.prompt] * len(samplings),
            sampling_params=samplings,
            require_reasoning=reasoning,
        )
        for sampling, output in zip(samplings, together, strict=True):
            alone = engine.generate(
                input_ids=COLD.prompt, sampling_params=sampling, require_reasoning=reasoning
            )
            assert output["output_ids"] == alone["output_ids"]


def test_an_impossible_grammar_is_an_error_and_the_engine_lives_on(engine):
    with pytest.raises(ValueError, match="Failed to compile json grammar"):
        _generate(engine, COLD, json_schema="{")
    assert _generate(engine, COLD)["output_ids"]
