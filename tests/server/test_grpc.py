"""SGLang's native gRPC server: its OpenAI methods carry the field and its answer as HTTP does."""

import json

import grpc
import pytest
from asking import (
    COLD,
    MAX_TOKENS,
    MODEL,
    PROMPT,
    QUESTION,
    TRACED,
    WIDE,
    answer_of,
    chat,
    check_answer,
    same_trace,
)

SERVICE = "/sglang.runtime.v1.SglangService"
LENGTH_DELIMITED = 2
ASKED = {
    "ChatComplete": {"messages": [{"role": "user", "content": QUESTION}]},
    "Complete": {"prompt": PROMPT},
}


def _field(number, value):
    """A field of bytes, as Protocol Buffers write it."""
    length, digits = len(value), b""
    while length > 127:
        digits += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | LENGTH_DELIMITED]) + digits + bytes([length]) + value


def _objects(message):
    """The JSON object in a chunk's bytes, if there is one."""
    start, end = message.find(b"{"), message.rfind(b"}")
    return [json.loads(message[start : end + 1])] if start >= 0 else []


@pytest.fixture(scope="module")
def ask(server):
    """Calls a method with a JSON body; gives the JSON objects of the answer."""
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:

        def call(method, soft, **own):
            body = {"model": MODEL, "max_tokens": MAX_TOKENS, **WIDE, **ASKED[method], **own}
            request = _field(1, json.dumps({**body, **soft}).encode())
            stream = channel.unary_stream(f"{SERVICE}/{method}")
            return [
                found for message in stream(request, timeout=600) for found in _objects(message)
            ]

        yield call


@pytest.mark.parametrize("method", ASKED)
@pytest.mark.parametrize("soft", [TRACED, COLD], ids=["think_end", "cold_stop"])
def test_whole_answers(client, ask, method, soft):
    (answer,) = ask(method, {"soft_thinking": soft})
    direct = answer_of(chat(client, soft).choices[0])
    assert same_trace(answer["choices"][0]["soft_thinking"], direct)


def test_the_carrier_of_chat(ask):
    carried = {"chat_template_kwargs": {"soft_thinking": COLD}}
    (answer,) = ask("ChatComplete", carried)
    check_answer(answer["choices"][0]["soft_thinking"], end="cold_stop")


@pytest.mark.parametrize("method", ASKED)
def test_streams(client, ask, method):
    chunks = ask(method, {"soft_thinking": TRACED}, stream=True)
    parts = [
        c["soft_thinking"] for chunk in chunks for c in chunk["choices"] if "soft_thinking" in c
    ]
    steps = [step for part in parts for step in part["concepts"]]
    direct = answer_of(chat(client, TRACED).choices[0])
    assert same_trace({**parts[-1], "concepts": steps}, direct)
    assert len(parts) > 1, "the whole trace came with one chunk"


@pytest.mark.parametrize("method", ASKED)
@pytest.mark.parametrize(
    ("soft", "words"),
    [
        ({"soft_thinking": {"max_topk": 0}}, "soft_thinking.max_topk must be an integer"),
        ({"softthinking": True}, "did you mean 'soft_thinking'"),
    ],
    ids=["bad value", "near spelling"],
)
def test_errors(ask, method, soft, words):
    try:
        told = json.dumps(ask(method, soft))  # what is refused later
    except grpc.RpcError as error:
        told = error.details()  # what the request's model refuses
    assert words in told
    assert "choices" not in told
