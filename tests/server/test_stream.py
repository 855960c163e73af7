"""Streams of chat and text completions, by the OpenAI client."""

import time

import pytest
from asking import COLD, THINK_END, TRACED, answer_of, chat, complete, same_trace
from streaming import read

SILENT = {**TRACED, "return_concepts": False}
ENDPOINTS = pytest.mark.parametrize("ask", [chat, complete], ids=["chat", "completions"])


def _texts(choice):
    if hasattr(choice, "text"):
        return choice.text, ""
    return choice.message.content or "", choice.message.reasoning_content or ""


@ENDPOINTS
@pytest.mark.parametrize("soft", [TRACED, COLD], ids=["think_end", "cold_stop"])
def test_chunks_make_the_whole_answer(client, ask, soft):
    whole = ask(client, soft).choices[0]
    choices, _ = read(ask(client, soft, stream=True))
    assert list(choices) == [0]
    assert (choices[0].text, choices[0].reasoning) == _texts(whole)
    assert choices[0].finish_reason == whole.finish_reason
    assert same_trace(choices[0].joined(), answer_of(whole))
    assert len(choices[0].answers) > 1, "the whole trace came with one chunk"


@ENDPOINTS
def test_without_concepts_only_the_last_chunk_has_the_field(client, ask):
    whole = ask(client, SILENT).choices[0]
    choices, _ = read(ask(client, SILENT, stream=True))
    (summary,) = choices[0].answers
    assert summary == pytest.approx(answer_of(whole), abs=1e-4)
    assert (choices[0].text, choices[0].reasoning) == _texts(whole)


@ENDPOINTS
@pytest.mark.parametrize("soft", [False, None, {"enabled": False}], ids=str)
def test_discrete_stream_has_no_field(client, ask, soft):
    choices, _ = read(ask(client, soft, stream=True, temperature=0))
    assert choices[0].answers == []
    assert choices[0].finish_reason is not None


@ENDPOINTS
def test_stream_cut_while_thinking(client, ask):
    choices, _ = read(ask(client, TRACED, stream=True, max_tokens=3))
    answer = choices[0].joined()
    assert (answer["steps"], answer["end"]) == (3, "length")
    assert len(answer["concepts"]) == 3


@ENDPOINTS
def test_choices_are_kept_apart(client, ask):
    arguments = {"soft": {**TRACED, "noise": "gumbel"}, "n": 2, "seed": 3, "max_tokens": 60}
    whole = ask(client, **arguments).choices
    choices, _ = read(ask(client, **arguments, stream=True))
    assert sorted(choices) == [0, 1]
    for choice in whole:
        streamed = choices[choice.index]
        assert (streamed.text, streamed.reasoning) == _texts(choice)
        assert same_trace(streamed.joined(), answer_of(choice))
    assert not same_trace(choices[0].joined(), choices[1].joined())


@ENDPOINTS
def test_usage_of_a_stream(client, ask):
    options = {"include_usage": True}
    choices, usage = read(ask(client, TRACED, stream=True, stream_options=options))
    whole = ask(client, TRACED).usage
    assert usage.completion_tokens == whole.completion_tokens
    if ask is chat:  # stock SGLang counts reasoning tokens in chat only
        assert usage.reasoning_tokens == choices[0].joined()["steps"]


@ENDPOINTS
def test_disconnected_stream_leaves_a_healthy_server(client, http, server, token_id, ask):
    before = ask(client, TRACED).choices[0]
    endless = {"ignore_eos": True}
    never = {str(token_id(THINK_END)): -100}
    stream = ask(client, TRACED, stream=True, max_tokens=1500, extra_body=endless, logit_bias=never)
    for _, _chunk in zip(range(3), stream, strict=False):
        pass
    stream.close()

    deadline = time.monotonic() + 300
    while (load := _load(http))["num_running_reqs"] > 0:
        assert time.monotonic() < deadline, load
        time.sleep(0.1)
    assert load["num_waiting_reqs"] == load["num_used_tokens"] == 0
    assert server.is_healthy()
    after = ask(client, TRACED).choices[0]
    assert _texts(after) == _texts(before)
    assert same_trace(answer_of(after), answer_of(before))


def _load(http):
    (load,) = http.get("/v1/loads").json()["loads"]
    return load
