"""Text completions, soft and discrete, by the OpenAI client."""

import pytest
from asking import (
    PROMPT,
    SUMMARY,
    THINK_END,
    TRACED,
    answer_of,
    chat,
    check_answer,
    complete,
    same_trace,
)
from streaming import read

PROMPTS = [PROMPT, "<|user|>What is 17+25?<|assistant|><think>"]


def test_discrete_completion_has_no_field(client):
    choice = complete(client, temperature=0).choices[0]
    assert THINK_END in choice.text
    assert answer_of(choice) is None


@pytest.mark.parametrize("soft", [True, {}], ids=str)
def test_soft_completion(client, soft):
    choice = complete(client, soft, temperature=0.6).choices[0]
    assert set(answer_of(choice)) == SUMMARY
    assert THINK_END in choice.text


def test_soft_response_has_one_field_more(client):
    soft = complete(client, True, max_tokens=3).to_dict()
    usual = complete(client, max_tokens=3).to_dict()
    assert soft["choices"][0].keys() - usual["choices"][0].keys() == {"soft_thinking"}
    assert soft.keys() == usual.keys()


def test_completion_thinks_as_chat_does(client):
    completed, said = complete(client, TRACED).choices[0], chat(client, TRACED).choices[0]
    check_answer(answer_of(completed), end="think_end")
    assert same_trace(answer_of(completed), answer_of(said))
    assert completed.text.endswith(said.message.content)


def test_every_prompt_of_a_list_gets_its_own_answer(client):
    alone = [complete(client, TRACED, prompt).choices[0] for prompt in PROMPTS]
    together = complete(client, TRACED, PROMPTS).choices
    assert [choice.index for choice in together] == [0, 1]
    for choice, expected in zip(together, alone, strict=True):
        assert choice.text == expected.text
        assert same_trace(answer_of(choice), answer_of(expected))


def test_prompts_and_samples_are_kept_apart_in_a_stream(client):
    arguments = {"soft": {**TRACED, "noise": "gumbel"}, "prompt": PROMPTS, "n": 2, "seed": 5}
    whole = complete(client, **arguments, max_tokens=20).choices
    choices, _ = read(complete(client, **arguments, max_tokens=20, stream=True))
    assert sorted(choices) == [choice.index for choice in whole] == [0, 1, 2, 3]
    for choice in whole:
        assert choices[choice.index].text == choice.text
        assert same_trace(choices[choice.index].joined(), answer_of(choice))
