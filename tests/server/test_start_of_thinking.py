"""Where thinking begins: what the chat template, the messages and the request say of it."""

import re

import pytest
from asking import PROMPT, QUESTION, TRACED, answer_of, chat, complete
from streaming import read

CLOSED = {"steps": 0, "end": "closed", "mean_entropy": 0.0, "longest_run": 0}
OFF = {"chat_template_kwargs": {"enable_thinking": False}}
SHORT = {"max_tokens": 24}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "sum",
        "schema": {
            "type": "object",
            "properties": {"a": {"enum": ["140", "no"]}, "b": {"type": "boolean"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}


def both(client, **own):
    """The same request soft and discrete, greedily."""
    own = {"temperature": 0, **own}
    return chat(client, True, **own).choices[0], chat(client, False, **own).choices[0]


def texts(choice):
    return choice.message.reasoning_content, choice.message.content


def test_a_closed_thought_is_answered_as_ever(client):
    soft, discrete = both(client, extra_body=OFF, **SHORT)
    assert answer_of(soft) == CLOSED
    assert texts(soft) == texts(discrete)
    assert soft.message.content and not soft.message.reasoning_content
    # and not as it would be after an open thought
    opened, _ = both(client, **SHORT)
    assert answer_of(opened)["steps"] > 0 and texts(opened) != texts(soft)


def test_a_closed_thought_in_a_stream(client):
    whole = chat(client, True, temperature=0, extra_body=OFF, **SHORT).choices[0]
    stream = chat(client, True, temperature=0, extra_body=OFF, stream=True, **SHORT)
    choices, _ = read(stream)
    assert choices[0].answers == [CLOSED]
    assert choices[0].text == whole.message.content


def test_a_closed_thought_with_a_grammar(client):
    soft, discrete = both(client, extra_body=OFF, response_format=SCHEMA)
    assert answer_of(soft) == CLOSED
    assert texts(soft) == texts(discrete)
    assert soft.message.content.startswith("{")
    pattern = "(yes|no): [0-9]{3}"
    soft, discrete = both(client, extra_body={**OFF, "regex": pattern})
    assert answer_of(soft) == CLOSED
    assert texts(soft) == texts(discrete)
    assert re.fullmatch(pattern, soft.message.content)


def test_reasoning_effort_none(client):
    soft, discrete = both(client, reasoning_effort="none", **SHORT)
    assert answer_of(soft) == CLOSED and texts(soft) == texts(discrete)
    assert answer_of(both(client, reasoning_effort="high", **SHORT)[0])["steps"] > 0


def test_every_sample_is_closed(client):
    response = chat(client, {"return_concepts": True}, n=3, extra_body=OFF, **SHORT)
    assert [answer_of(choice) for choice in response.choices] == [{**CLOSED, "concepts": []}] * 3


def test_the_answer_has_its_own_parameters(client):
    """Those of after thinking hold from the first token on."""
    soft = {"after_thinking_temperature": 0}
    response = chat(client, soft, temperature=2.0, extra_body=OFF, **SHORT)
    _, greedy = both(client, extra_body=OFF, **SHORT)
    assert texts(response.choices[0]) == texts(greedy)


def test_a_closed_request_is_cached_whole(http):
    """All of its key-value pairs are of tokens."""
    prompt = f"<|user|>What is {'1' * 40}+2?<|assistant|><think></think>"
    sampling = {"temperature": 0, "max_new_tokens": 20, "ignore_eos": True, "soft_thinking": True}
    request = {"text": prompt, "sampling_params": sampling}
    answer = http.post("/generate", json=request).json()
    assert answer["meta_info"]["soft_thinking"] == CLOSED
    following = {**request, "text": prompt + answer["text"] + "<|user|>more<|assistant|><think>"}
    meta = http.post("/generate", json=following).json()["meta_info"]
    assert meta["soft_thinking"]["steps"] == 20
    assert meta["cached_tokens"] >= answer["meta_info"]["prompt_tokens"] + 19


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ("<think>i need 7*20", "length"),
        ("<think>i need 7*20</think>", "closed"),
        ("<think>i need 7*20</think>the answer is", "closed"),
        ("the answer is", "length"),
    ],
)
def test_a_final_message_is_continued(client, content, end):
    """In its thought, or in its answer."""
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": content}]
    own = {
        "messages": messages,
        "model": "m",
        "temperature": 0,
        "max_tokens": 8,
        "extra_body": {
            "continue_final_message": True,
            "add_generation_prompt": False,
            "soft_thinking": True,
        },
    }
    choice = client.chat.completions.create(**own).choices[0]
    assert answer_of(choice)["end"] == end
    if end == "closed":
        own["extra_body"]["soft_thinking"] = False
        assert texts(client.chat.completions.create(**own).choices[0]) == texts(choice)


TURNS = f"<|user|>{QUESTION}<|assistant|><think>7*20</think>140<|end|>"
PROMPTS = {
    "no marker": (f"<|user|>{QUESTION}<|assistant|>", True),
    "open": (PROMPT, True),
    "closed": (f"{PROMPT}</think>", False),
    "closed, with a word after it": (f"{PROMPT}</think>the", False),
    "opened again": (f"{PROMPT}</think><think>", True),
    "a literal end in the question": (f"<|user|>is </think> a word?{PROMPT}", True),
    "a literal end in the question, opened by the model": (
        "<|user|>is </think> a word?<|assistant|>",
        True,
    ),
    "turns before, open": (TURNS + PROMPT, True),
    "turns before, closed": (f"{TURNS}{PROMPT}</think>", False),
    "turns before, opened by the model": (f"{TURNS}<|user|>{QUESTION}<|assistant|>", True),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_the_last_marker_of_the_last_turn_decides(client, name):
    prompt, thinks = PROMPTS[name]
    own = {"prompt": prompt, "temperature": 0, "max_tokens": 6, "extra_body": {"ignore_eos": True}}
    soft = complete(client, True, **own).choices[0]
    assert answer_of(soft)["steps"] == (6 if thinks else 0)
    if not thinks:
        assert answer_of(soft) == CLOSED
        assert soft.text == complete(client, False, **own).choices[0].text


@pytest.mark.parametrize("prompt", [PROMPT, f"{PROMPT}</think>"])
def test_a_request_may_say_it_outright(client, prompt):
    own = {"prompt": prompt, "temperature": 0, "max_tokens": 6, "extra_body": {"ignore_eos": True}}
    assert answer_of(complete(client, {"start": "answer"}, **own).choices[0]) == CLOSED
    assert answer_of(complete(client, {"start": "thinking"}, **own).choices[0])["steps"] == 6


def test_markers_of_ones_own(client):
    """Of several tokens, also where they grow together with their neighbours in the prompt."""
    own = {"temperature": 0, "max_tokens": 6, "extra_body": {"ignore_eos": True}}
    soft = {"think_start_str": "so, ", "think_end_str": "the answer"}
    for text, steps in [("so, 7", 6), ("so, 7 the answer is", 0), ("the answer so, the", 6)]:
        prompt = f"<|user|>{QUESTION}<|assistant|>{text}"
        answer = answer_of(complete(client, soft, prompt=prompt, **own).choices[0])
        assert answer["steps"] == steps, text


def test_a_budget_in_chat(client):
    """Exact, with the answer after it, whole and streamed."""
    soft = {**TRACED, "max_thinking_steps": 7, "cold_stop_str": "so, enough.</think>"}
    response = chat(client, soft)
    choice, answer = response.choices[0], answer_of(response.choices[0])
    assert answer["end"] == "budget"
    assert answer["steps"] == response.usage.reasoning_tokens == len(answer["concepts"]) > 8
    assert choice.message.reasoning_content.endswith("so, enough.")
    assert choice.message.content
    assert all(len(concept) == 1 for concept in answer["concepts"][7:])
    choices, _ = read(chat(client, soft, stream=True))
    assert (choices[0].reasoning, choices[0].text) == texts(choice)
    assert choices[0].joined()["end"] == "budget"


def test_a_stop_that_is_meant_for_the_answer(client):
    """It neither ends the thought nor cuts the text that is there already."""
    soft = {**TRACED, "max_thinking_steps": 40}
    stop = ["0"]
    cut = chat(client, soft, stop=stop).choices[0]
    assert answer_of(cut)["end"] == "stop" and not cut.message.content
    whole = chat(client, soft).choices[0]
    sleeping = {**soft, "stop_in_thinking": False}
    choice = chat(client, sleeping, stop=stop).choices[0]
    assert "0" in choice.message.reasoning_content
    assert choice.message.reasoning_content == whole.message.reasoning_content
    assert choice.message.content == whole.message.content.partition("0")[0]
    assert choice.finish_reason == "stop"
    choices, _ = read(chat(client, sleeping, stop=stop, stream=True))
    assert (choices[0].reasoning, choices[0].text) == texts(choice)


def test_thinking_again_in_a_stream(client, token_id):
    """Chunks carry their own steps, whose positions say where in the output they are."""
    soft = {**TRACED, "max_thinking_steps": 5, "rethink": True, "think_start_str": "the answer"}
    whole = answer_of(complete(client, soft).choices[0])
    positions = whole["positions"]
    assert len(positions) == whole["steps"] == len(whole["concepts"])
    assert positions[:6] == list(range(6)) and len(positions) > 6
    gap = positions[6] - positions[5]
    assert gap > 1
    choices, _ = read(complete(client, soft, stream=True))
    assert choices[0].joined()["positions"] == positions
    # the budget is that of all thoughts: the second one is made to end at once
    assert whole["concepts"][6] == [[token_id("</think>"), 1.0]]
    assert whole["end"] == "budget"
