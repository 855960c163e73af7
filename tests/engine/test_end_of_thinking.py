"""The evaluation's Engine client: thinking ends with a token, which its text may not tell."""

import asyncio

import pytest

from soft_sglang.eval.client import ClientError, Question, Sampling
from soft_sglang.eval.engine_client import EngineClient

GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=-1, min_p=0.0, max_new_tokens=60)


def ask(client, soft_thinking=False, message="w10 w20 w30"):
    return client.run(client.ask(Question(message, GREEDY, soft_thinking, seed=0)))


async def ask_each(client, ends):
    """The same question, with one end of thinking each."""
    question = Question("w10 w20 w30", GREEDY, False, seed=0)
    return await asyncio.gather(*(client(end).ask(question) for end in ends))


@pytest.fixture
def client(engine):
    """With a think-end that the engine does not know: it is the client's matter."""
    return lambda think_end: EngineClient(engine, "tiny", think_end, digest=False)


def test_every_word_as_the_end_of_thinking(client):
    """A word may be the beginning of another: "w5" is in the text of "w55"."""
    plain = client("w4")
    words = ask(plain).text.split()
    prefixes = {word[:length] for word in words for length in range(2, len(word) + 1)}
    ends = sorted(prefixes - {"w0", "w1", "w2", "w3"})
    misleading = 0
    for word, output in zip(ends, plain.run(ask_each(client, ends)), strict=True):
        assert output.text.split() == words
        if word in words:
            end = words.index(word)
            assert output.thinking_tokens == end + 1
            assert (output.thinking or "").split() == words[:end]
            assert output.answer.split() == words[end + 1 :]
            misleading += word in " ".join(words[:end])
        else:
            assert (output.thinking, output.answer) == (None, "")
            assert output.thinking_tokens == output.tokens == len(words)
            misleading += 1
    assert misleading >= 3


def test_soft_requests_end_where_they_say(client):
    soft = {"early_stopping_entropy_threshold": 6.0, "early_stopping_length_threshold": 7}
    output = ask(client("</think>"), {**soft, "return_entropies": True})
    assert output.soft_thinking["end"] == "cold_stop"
    assert output.soft_thinking["steps"] == output.thinking_tokens == 7
    assert len(output.soft_thinking["entropies"]) == 7
    assert len(output.thinking.split()) == 6


def test_refusals_are_told_in_one_line(client):
    with pytest.raises(ClientError, match="the engine refuses a request: soft_thinking"):
        ask(client("</think>"), {"max_topk": 0})
    with pytest.raises(ClientError, match="context length"):
        ask(client("</think>"), message="w5 " * 2000)
