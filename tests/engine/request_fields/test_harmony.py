"""gpt-oss: its thoughts are messages of the analysis channel, as docs/serving.md has it."""

import harmony
import pytest
import regex
from features import FEATURES, UNCOMPILED
from harmony import HARMONY_TOKENS

HARMONY = {
    "think_start_str": "<|channel|>analysis<|message|>",
    "think_end_str": "<|end|>",
    "rethink": True,
}
"""The configuration of the documentation."""
PROMPT = (
    "<|start|>system<|message|>w120<|end|><|start|>user<|message|>w121<|end|><|start|>assistant"
)
WORDS = r"(w1\d\d){5}"
ANALYSIS = rf"<\|channel\|>analysis<\|message\|>{WORDS}<\|end\|><\|start\|>assistant"
FINAL = rf"<\|channel\|>final<\|message\|>{WORDS}"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return harmony.create(tmp_path_factory.mktemp("harmony"))


@pytest.fixture
def engine(house, model):
    return house.get(model, UNCOMPILED, **FEATURES)


def generate(engine, pattern, prompt=PROMPT, **soft):
    """A random model keeps to the format because a grammar makes it."""
    sampling = {
        "temperature": 0.8,
        "max_new_tokens": 80,
        "regex": pattern,
        "soft_thinking": {**HARMONY, "return_concepts": True, "max_topk": 4, **soft},
    }
    output = engine.generate(prompt=prompt, sampling_params=sampling)
    tokens = [HARMONY_TOKENS[token] for token in output["output_ids"]]
    assert regex.fullmatch(pattern, "".join(tokens[:-1])), tokens
    return tokens, output["meta_info"]["soft_thinking"]


@pytest.mark.parametrize("thoughts", [0, 1, 2])
def test_messages_of_the_analysis_channel_are_thoughts(engine, thoughts):
    tokens, answer = generate(engine, rf"({ANALYSIS}){{{thoughts}}}{FINAL}")
    assert tokens.count("analysis") == thoughts
    assert answer["end"] == ("think_end" if thoughts else "closed")
    # of eleven tokens of a message the words and the end are the thought
    expected = [11 * n + place for n in range(thoughts) for place in range(3, 9)]
    assert answer["positions"] == expected
    assert [tokens[position] for position in expected[5::6]] == ["<|end|>"] * thoughts
    widths = [len(concept) for concept in answer["concepts"]]
    assert widths == [4, 4, 4, 4, 4, 1] * thoughts


def test_a_budget_ends_the_message(engine):
    """And the next one at once: it is that of the request."""
    pattern = ANALYSIS.replace("{5}", "{2}") + ANALYSIS.replace("{5}", "{0}") + FINAL
    open_ = pattern.replace("{2}", "{2,9}").replace("{0}", "{0,9}")
    tokens, answer = generate(engine, open_, max_thinking_steps=2)
    assert regex.fullmatch(pattern, "".join(tokens[:-1])), tokens
    assert (answer["end"], answer["steps"]) == ("budget", 4)


def test_a_prompt_that_opens_the_message(engine):
    prompt = PROMPT + "<|channel|>analysis<|message|>"
    _, answer = generate(engine, rf"{WORDS}<\|end\|><\|start\|>assistant{FINAL}", prompt)
    assert (answer["end"], answer["positions"]) == ("think_end", list(range(6)))
