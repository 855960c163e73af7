"""Chat completions, soft and discrete, by the OpenAI client."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from asking import (
    COLD,
    EOS,
    SUMMARY,
    THINK_END,
    TRACED,
    answer_of,
    chat,
    check_answer,
    same_trace,
)

NOISY = {**TRACED, "noise": "gumbel"}


def _texts(choice):
    return choice.message.reasoning_content, choice.message.content


@pytest.fixture(scope="module")
def discrete(client):
    return chat(client, temperature=0)


@pytest.fixture(scope="module")
def traced(client):
    return chat(client, TRACED)


def test_discrete_request_reasons_and_answers(discrete):
    reasoning, content = _texts(discrete.choices[0])
    assert reasoning and content
    assert 0 < discrete.usage.reasoning_tokens < discrete.usage.completion_tokens
    assert answer_of(discrete.choices[0]) is None


@pytest.mark.parametrize("soft", [False, {"enabled": False}, None], ids=str)
def test_request_that_does_not_ask_is_discrete(client, discrete, soft):
    choice = chat(client, soft, temperature=0).choices[0]
    assert _texts(choice) == _texts(discrete.choices[0])
    assert answer_of(choice) is None


@pytest.mark.parametrize(
    "soft", [True, {}, {"enabled": True}, {"enabled": None}, {"max_topk": None}], ids=str
)
def test_request_that_asks_is_soft(client, soft):
    response = chat(client, soft, temperature=0.6)
    answer = answer_of(response.choices[0])
    assert set(answer) == SUMMARY
    assert answer["end"] == "think_end"
    assert 0 < answer["steps"] == response.usage.reasoning_tokens
    assert answer["mean_entropy"] > 0
    assert all(_texts(response.choices[0]))


def test_soft_response_has_one_field_more(discrete, traced):
    soft, usual = traced.to_dict(), discrete.to_dict()
    assert soft["choices"][0].keys() - usual["choices"][0].keys() == {"soft_thinking"}
    assert usual["choices"][0].keys() <= soft["choices"][0].keys()
    assert soft.keys() == usual.keys()


def test_trace_has_the_shape_of_the_contract(traced, token_id):
    answer = answer_of(traced.choices[0])
    check_answer(answer, end="think_end")
    assert answer["concepts"][-1] == [[token_id(THINK_END), 1.0]]
    assert max(len(concept) for concept in answer["concepts"]) == TRACED["max_topk"]


def test_emitted_ids_are_the_heaviest(client, http):
    choice = chat(client, {**TRACED, "max_topk": 3}).choices[0]
    concepts = answer_of(choice)["concepts"]
    tokens = [concept[0][0] for concept in concepts[:-1]]
    text = http.post("/detokenize", json={"tokens": tokens}).json()["text"]
    assert text.strip() == choice.message.reasoning_content.strip()


def test_max_topk_one_is_greedy(client, discrete):
    choice = chat(client, {**TRACED, "max_topk": 1}).choices[0]
    assert _texts(choice) == _texts(discrete.choices[0])
    assert all(len(concept) == 1 for concept in answer_of(choice)["concepts"])


def test_cold_stop_ends_thinking_and_the_answer_follows(client, traced, token_id):
    response = chat(client, COLD)
    answer = answer_of(response.choices[0])
    check_answer(answer, end="cold_stop")
    assert answer["steps"] == 5 == response.usage.reasoning_tokens
    assert answer["concepts"][-1] == [[token_id(THINK_END), 1.0]]
    assert all(_texts(response.choices[0]))
    before = answer_of(traced.choices[0])["concepts"]
    assert [c[0][0] for c in answer["concepts"][:4]] == [c[0][0] for c in before[:4]]


def test_thinking_cut_by_max_tokens(client):
    choice = chat(client, TRACED, max_tokens=3).choices[0]
    check_answer(answer_of(choice), end="length")
    assert answer_of(choice)["steps"] == 3
    assert choice.finish_reason == "length"
    assert not choice.message.content


def test_thinking_cut_by_a_stop_string(client, traced, token_id):
    ids = [concept[0][0] for concept in answer_of(traced.choices[0])["concepts"]]
    response = chat(client, TRACED, stop=["*"])
    choice = response.choices[0]
    check_answer(answer_of(choice), end="stop")
    assert answer_of(choice)["steps"] == response.usage.completion_tokens
    assert answer_of(choice)["steps"] == ids.index(token_id("*")) + 1
    assert choice.finish_reason == "stop"
    assert not choice.message.content


def test_thinking_cut_by_a_stop_token(client, traced):
    first = answer_of(traced.choices[0])["concepts"][0][0][0]
    choice = chat(client, TRACED, extra_body={"stop_token_ids": [first]}).choices[0]
    check_answer(answer_of(choice), end="stop")
    assert answer_of(choice)["steps"] == 1


def test_thinking_ended_by_the_end_of_sequence(client, token_id):
    choice = chat(client, TRACED, logit_bias={str(token_id(EOS)): 100}).choices[0]
    check_answer(answer_of(choice), end="eos")
    assert answer_of(choice)["steps"] == 1
    assert choice.finish_reason == "stop"


def test_log_probabilities_are_of_the_emitted_ids(client):
    response = chat(client, COLD, logprobs=True)
    entries = response.choices[0].logprobs.content
    assert len(entries) == response.usage.completion_tokens
    assert entries[4].token == THINK_END


def test_samples_differ_and_replay(client):
    arguments = {"seed": 11, "max_tokens": 40}
    first, again = (chat(client, NOISY, n=3, **arguments).choices for _ in range(2))
    alone = chat(client, NOISY, **arguments).choices[0]
    other = chat(client, NOISY, seed=12345, max_tokens=40).choices[0]

    traces = [answer_of(choice) for choice in first]
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert not same_trace(traces[i], traces[j])
    for trace, choice in zip(traces, again, strict=True):
        assert same_trace(answer_of(choice), trace)
    assert same_trace(answer_of(alone), traces[0])
    assert _texts(alone) == _texts(first[0])
    assert not same_trace(answer_of(other), traces[0])


def test_concurrent_requests_give_what_each_gives_alone(client):
    requests = [
        {"soft": TRACED, "question": "What is 43*34?"},
        {"soft": {**TRACED, "max_topk": 12}, "question": "What is 17+25?"},
        {"temperature": 0, "question": "What is 43*34?"},
    ]
    alone = [chat(client, **request).choices[0] for request in requests]
    with ThreadPoolExecutor(len(requests)) as threads:
        futures = [threads.submit(chat, client, **request) for request in requests]
        together = [future.result().choices[0] for future in futures]

    for choice, expected in zip(together, alone, strict=True):
        assert _texts(choice) == _texts(expected)
    for choice, expected in zip(together[:2], alone[:2], strict=True):
        assert same_trace(answer_of(choice), answer_of(expected))
    assert answer_of(together[2]) is None
