"""Two servers, one that prefills and one that decodes, answer as one server does.

The first step of a thought happens on one of them and all others on the other, which retracts
requests every few steps here.
"""

import re
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from asking import (
    EOS,
    MODEL,
    PROMPT,
    QUESTION,
    THINK_END,
    TRACED,
    WIDE,
    answer_of,
    chat,
    check_answer,
    complete,
    same_trace,
)
from metric_samples import scrape, total
from server_pair import Role, ServerPair
from streaming import read
from tolerances import BUNDLED_TRACE_WEIGHT
from traces import close, is_clear

STEPS = 24
WITHIN = 300
"""Seconds."""
RETRACTING = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "7"}

_NEVER_COLD = {**TRACED, "early_stopping_entropy_threshold": 0}
_ALWAYS_COLD = {**TRACED, "early_stopping_entropy_threshold": 100}
_REOPENED = {**TRACED, "rethink": True}
_SOFT = {
    "a mixture": _NEVER_COLD,
    "Gumbel noise": {**_NEVER_COLD, "noise": "gumbel", "return_entropies": True},
    "Dirichlet noise": {**_NEVER_COLD, "noise": "dirichlet", "dirichlet_alpha": 5.0},
    "Cold Stop at the first step": {**_ALWAYS_COLD, "early_stopping_length_threshold": 1},
    "Cold Stop a few steps later": {**_ALWAYS_COLD, "early_stopping_length_threshold": 4},
    "a forced text that begins at the first step": {
        **_ALWAYS_COLD,
        "early_stopping_length_threshold": 1,
        "cold_stop_str": "so, enough.</think>",
    },
    "a budget of no steps": {**TRACED, "max_thinking_steps": 0},
    "thinking again": {**_REOPENED, "max_thinking_steps": 6, "think_start_str": "the"},
    "an answer that thinks again": {**_REOPENED, "start": "answer", "think_start_str": "is"},
    "no thought": {**TRACED, "start": "answer"},
    "the state of a policy": {**TRACED, "policy": "swi_reasoning", "swi_window_size": 3},
    "a policy that mixes the answer": {**TRACED, "policy": "mixture_of_inputs"},
    "a hidden state": {**TRACED, "policy": "coconut_tf"},
}
"""``soft_thinking`` by what is special about the first step."""
RETRACTED = [
    "Gumbel noise",
    "a hidden state",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("thinking again", "the state of a policy", "a policy that mixes the answer")
    ),
]
KINDS = {
    **{name: (soft, STEPS) for name, soft in _SOFT.items()},
    "only one token": (_NEVER_COLD, 1),
    "discrete": (None, STEPS),
    "discrete, only one token": (False, 1),
}
"""Name to ``soft_thinking`` and the number of tokens."""


def body_of(name):
    soft, tokens = KINDS[name]
    number = list(KINDS).index(name)
    temperature = 0.8 if soft else 0
    sampling = {"max_new_tokens": tokens, "temperature": temperature, "sampling_seed": number}
    if soft is not None:
        sampling["soft_thinking"] = soft
    prompt = f"<|user|>What is {number + 3}*{2 * number + 11}?<|assistant|><think>"
    return {"text": prompt, "sampling_params": sampling}


@pytest.fixture(scope="module")
def expected(http):
    """What one server answers, by kind."""
    answers = {}
    for name in KINDS:
        response = http.post("/generate", json=body_of(name))
        assert response.status_code == 200, response.text
        answers[name] = response.json()
        if soft := answers[name]["meta_info"].get("soft_thinking"):
            clear = "policy" in KINDS[name][0] or is_clear(soft["concepts"])
            assert clear, f"{name}: two tokens weigh almost the same; change the prompt"
    return answers


@pytest.fixture(scope="module")
def pair(tmp_path_factory, expected):
    """Two servers and the gateway."""
    pair = ServerPair(
        tmp_path_factory.mktemp("pair"), "--enable-metrics", decode=Role(environment=RETRACTING)
    )
    try:
        pair.wait_until_ready()
        yield pair
        for server in (pair.prefill, pair.decode, pair.gateway):
            assert server.alive, "a server did not live to the end of the tests"
    finally:
        pair.stop()


@pytest.fixture(scope="module")
def gateway(pair):
    """The real OpenAI client, at the gateway."""
    with pair.gateway.openai() as client:
        yield client


def wait_until_idle(server):
    """Return when a server runs no request and holds no key-value pairs but cached ones."""
    deadline = time.monotonic() + WITHIN
    with server.http() as http:
        while True:
            (load,) = http.get("/v1/loads").json()["loads"]
            if not load["num_running_reqs"] and not load["num_waiting_reqs"]:
                break
            assert time.monotonic() < deadline, f"not idle: {load}"
            time.sleep(0.2)
        assert http.post("/flush_cache").status_code == 200


def check_same(output, expected):
    assert output["output_ids"] == expected["output_ids"]
    assert output["text"] == expected["text"]
    got, want = (o["meta_info"].get("soft_thinking") for o in (output, expected))
    if want is None:
        assert got is None
        return
    assert set(got) == set(want)
    assert same_trace(got, want)
    assert got["longest_run"] == want["longest_run"]
    assert got.get("positions") == want.get("positions")
    if "entropies" in want:
        assert got["entropies"] == pytest.approx(want["entropies"], **BUNDLED_TRACE_WEIGHT)


def test_side_by_side_they_answer_as_one_server(pair, expected):
    before = scrape_both(pair)
    with ThreadPoolExecutor(len(KINDS)) as clients:
        answers = list(clients.map(lambda name: pair.ask("/generate", body_of(name)), KINDS))
    for name, response in zip(KINDS, answers, strict=True):
        assert response.status_code == 200, (name, response.text)
        check_same(response.json(), expected[name])
    check_metrics(before, scrape_both(pair), [response.json() for response in answers])


def scrape_both(pair):
    with pair.prefill.http() as prefill, pair.decode.http() as decode:
        return scrape(prefill), scrape(decode)


def check_metrics(before, after, outputs):
    """Both servers together count every request and every step once."""
    soft = [o["meta_info"]["soft_thinking"] for o in outputs if "soft_thinking" in o["meta_info"]]

    def change(server, name, **labels):
        return total(after[server], name, **labels) - total(before[server], name, **labels)

    assert change(0, "soft_sglang:requests_total") == 0
    assert change(0, "soft_sglang:ends_total") == 0
    assert change(1, "soft_sglang:requests_total") == len(soft)
    for end in {answer["end"] for answer in soft}:
        count = sum(answer["end"] == end for answer in soft)
        assert change(1, "soft_sglang:ends_total", end=end) == count
    for name, expected in {
        "soft_sglang:thinking_steps_total": sum(answer["steps"] for answer in soft),
        "soft_sglang:cold_stops_total": sum(answer["end"] == "cold_stop" for answer in soft),
    }.items():
        assert change(0, name) + change(1, name) == expected
    assert change(0, "soft_sglang:thinking_steps_total") > 0


def test_the_gateway_serves_completions(gateway, client):
    soft = {**TRACED, "noise": "gumbel"}
    whole = complete(client, soft, max_tokens=24, seed=5).choices[0]
    choice = complete(gateway, soft, max_tokens=24, seed=5).choices[0]
    check_answer(answer_of(choice), end="length")
    assert choice.text == whole.text
    assert same_trace(answer_of(choice), answer_of(whole))

    stream = complete(gateway, soft, max_tokens=24, seed=5, stream=True)
    streamed = read(stream)[0][0]
    assert streamed.text == whole.text
    assert same_trace(streamed.joined(), answer_of(whole))
    first = streamed.answers[0]["concepts"]
    assert close(first, answer_of(whole)["concepts"][: len(first)], BUNDLED_TRACE_WEIGHT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"soft_thinking": {"max_topk": 0}}, "max_topk must be an integer from 1 to 32"),
        ({"soft_thinking": True, "n": 2}, "n must be 1 on a pair"),  # stock SGLang never answers
    ],
    ids=["value", "samples"],
)
def test_the_gateway_passes_errors_on(fields, message, pair):
    with pair.gateway.http() as http:
        body = {"model": MODEL, "prompt": PROMPT, **fields}
        response = http.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert message in response.text


@pytest.mark.parametrize("steps", [1, 3])
def test_a_grammar_after_the_thought(steps, pair, client):
    """Both servers' grammars see the first token; the one that decodes goes on with it."""
    soft = {**_ALWAYS_COLD, "early_stopping_length_threshold": steps}
    pattern = "(yes|no): [0-9]{3}"
    whole = chat(client, soft, extra_body={"regex": pattern}, max_tokens=STEPS).choices[0]
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": STEPS,
        "regex": pattern,
        "soft_thinking": soft,
        **WIDE,
    }
    response = pair.ask("/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert re.fullmatch(pattern, choice["message"]["content"])
    assert choice["message"]["content"] == whole.message.content
    assert choice["soft_thinking"]["steps"] == steps
    assert same_trace(choice["soft_thinking"], answer_of(whole))


_ORDINARY = {"max_new_tokens": 8, "sampling_seed": 1}


def _sampling(**soft):
    return {**_ORDINARY, "soft_thinking": soft}


@pytest.mark.parametrize(
    ("prefill", "decode", "message"),
    [
        (_sampling(max_topk=4), _sampling(max_topk=5), "soft_thinking.max_topk is not the same"),
        (_ORDINARY, _sampling(max_topk=5), "took the request for an ordinary one"),
        (_sampling(max_topk=4), _ORDINARY, "took the request for a soft one"),
    ],
    ids=["parameters", "ordinary there", "ordinary here"],
)
def test_servers_that_read_a_request_differently(prefill, decode, message, pair):
    bodies = [{"text": PROMPT, "sampling_params": own} for own in (decode, prefill)]
    response = pair.ask("/generate", *bodies)
    assert response.status_code == 400, response.text
    assert message in response.text


@contextmanager
def running(pair, body):
    """While active, a request runs on the decode server; it is aborted at the end.

    Yields:
        What is to become of it.
    """
    rid = f"running-{secrets.token_hex(4)}"
    with pair.decode.http() as http, ThreadPoolExecutor(1) as client:
        answer = client.submit(pair.ask, "/generate", {**body, "rid": rid})
        deadline = time.monotonic() + WITHIN
        while not http.get("/v1/loads").json()["loads"][0]["num_running_reqs"]:
            assert time.monotonic() < deadline and not answer.done()
            time.sleep(0.1)
        try:
            yield answer
        finally:
            http.post("/abort_request", json={"rid": rid})
            answer.result()


@pytest.fixture(scope="module")
def endless(token_id):
    """A request that runs until it is aborted, soft or not."""

    def body(soft):
        bias = {str(token_id(text)): -100.0 for text in (EOS, THINK_END)}
        sampling = {"max_new_tokens": 1500, "logit_bias": bias}
        return {"text": PROMPT, "sampling_params": {**sampling, "soft_thinking": soft}}

    return body


@pytest.mark.parametrize("name", RETRACTED)
def test_retracted_thoughts_go_on_where_they_were(pair, expected, endless, name):
    """SGLang retracts who has emitted less: here it is always the soft one."""
    with running(pair, endless(False)):
        output = pair.ask("/generate", body_of(name)).json()
    check_same(output, expected[name])
    assert output["meta_info"]["num_retractions"] >= 1


def test_an_abort_leaves_nothing(pair, endless):
    with running(pair, endless(_NEVER_COLD)) as answer:
        pass
    output = answer.result().json()
    assert output["meta_info"]["finish_reason"]["type"] == "abort"
    soft = output["meta_info"]["soft_thinking"]
    assert soft["end"] == "abort"
    assert soft["steps"] == len(soft["concepts"]) == len(output["output_ids"]) > 0
    wait_until_idle(pair.prefill)
    wait_until_idle(pair.decode)


def test_a_request_whose_prefill_never_comes_can_be_aborted(pair, endless):
    """It waits in a queue of the decode server, which may answer it with an error."""
    room = {"bootstrap_host": "127.0.0.1", "bootstrap_port": pair.bootstrap_port}
    body = {**endless(_NEVER_COLD), **room, "bootstrap_room": 12345, "rid": "waiting"}
    deadline = time.monotonic() + WITHIN
    with pair.decode.http() as http, ThreadPoolExecutor(1) as client:
        answer = client.submit(http.post, "/generate", json=body)
        with pair.decode.http() as other:
            while not answer.done():
                assert time.monotonic() < deadline
                other.post("/abort_request", json={"rid": "waiting"})
                time.sleep(0.2)
    response = answer.result()
    assert "bort" in response.text, response.text
    wait_until_idle(pair.decode)


def test_a_thought_is_not_computed_anew_from_tokens(pair, endless):
    """After a pause with retraction SGLang's decode server has the prefill server compute it."""
    with running(pair, endless(_NEVER_COLD)) as answer, pair.decode.http() as http:
        assert http.post("/pause_generation", json={"mode": "retract"}).status_code == 200
        assert http.post("/continue_generation", json={}).status_code == 200
        response = answer.result()
    assert response.status_code == 503, response.text
    assert "cannot compute a thought anew" in response.text
    wait_until_idle(pair.decode)
