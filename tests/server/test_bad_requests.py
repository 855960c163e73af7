"""Malformed requests: a 400 that names the field and what is allowed, and the server lives on."""

import openai
import pytest
from asking import PROMPT, TRACED, answer_of, chat, complete, same_trace

INTEGER = "an integer from 1 to"

MALFORMED = {
    "list": ([], ["soft_thinking must be true, false or an object", "list"]),
    "string": ("yes", ["soft_thinking must be true, false or an object", "str"]),
    "number": (1, ["soft_thinking must be true, false or an object", "int"]),
    "zero": (0, ["soft_thinking must be true, false or an object", "int"]),
    "unknown key": ({"max_top_k": 5}, ["'max_top_k'", "allowed are", "max_topk", "noise"]),
    "unknown key, null": ({"max_top_k": None}, ["'max_top_k'", "allowed are"]),
    "unknown key, off": ({"enabled": False, "max_top_k": 5}, ["'max_top_k'", "allowed are"]),
    "wire key": ({"think_end_id": 3}, ["'think_end_id'", "allowed are"]),
    "empty key": ({"": 3}, ["''", "allowed are"]),
    "enabled 1": ({"enabled": 1}, ["soft_thinking.enabled must be true or false", "got 1"]),
    "enabled 'true'": ({"enabled": "true"}, ["soft_thinking.enabled must be true or false"]),
    "max_topk 0": ({"max_topk": 0}, ["soft_thinking.max_topk must be an integer from 1 to 32"]),
    "max_topk -1": ({"max_topk": -1}, ["soft_thinking.max_topk must be an integer from 1 to 32"]),
    "max_topk above the server's": ({"max_topk": 33}, ["soft_thinking.max_topk", "to 32", "33"]),
    "max_topk huge": ({"max_topk": 10**18}, ["soft_thinking.max_topk", "to 32"]),
    "max_topk boolean": ({"max_topk": True}, ["soft_thinking.max_topk", INTEGER, "True"]),
    "max_topk fraction": ({"max_topk": 2.5}, ["soft_thinking.max_topk", INTEGER, "2.5"]),
    "max_topk string": ({"max_topk": "5"}, ["soft_thinking.max_topk", INTEGER, "'5'"]),
    "max_topk list": ({"max_topk": [5]}, ["soft_thinking.max_topk", INTEGER, "[5]"]),
    "entropy negative": (
        {"early_stopping_entropy_threshold": -0.1},
        ["soft_thinking.early_stopping_entropy_threshold must be a number from 0 to", "-0.1"],
    ),
    "entropy 'nan'": (
        {"early_stopping_entropy_threshold": "nan"},
        ["soft_thinking.early_stopping_entropy_threshold must be a number", "'nan'"],
    ),
    "entropy boolean": (
        {"early_stopping_entropy_threshold": False},
        ["soft_thinking.early_stopping_entropy_threshold must be a number", "False"],
    ),
    "length 0": (
        {"early_stopping_length_threshold": 0},
        ["soft_thinking.early_stopping_length_threshold must be", INTEGER],
    ),
    "length above int32": (
        {"early_stopping_length_threshold": 2**31},
        ["soft_thinking.early_stopping_length_threshold must be", INTEGER],
    ),
    "think_end_str of too many tokens": (
        {"think_end_str": "</thinking></thinking>"},
        ["think_end_str must be 1 to 16 tokens", "'</thinking></thinking>'", "18 tokens"],
    ),
    "think_end_str unknown": (
        {"think_end_str": "日"},
        ["think_end_str must be 1 to 16 tokens", "日", "unknown"],
    ),
    "start unknown": ({"start": "now"}, ["soft_thinking.start", "'auto'", "'answer'", "'now'"]),
    "start boolean": ({"start": True}, ["soft_thinking.start", "'thinking'", "True"]),
    "think_start_str unknown": (
        {"think_start_str": "日"},
        ["think_start_str must be 1 to 16 tokens", "日", "unknown"],
    ),
    "think_start_str is the end": (
        {"think_start_str": "</think>"},
        ["think_start_str must be another text than think_end_str"],
    ),
    "rethink 1": ({"rethink": 1}, ["soft_thinking.rethink must be true or false", "1"]),
    "first token 'yes'": (
        {"think_end_first_token": "yes"},
        ["soft_thinking.think_end_first_token must be true or false", "'yes'"],
    ),
    "cold_stop_str without the end": (
        {"cold_stop_str": "enough."},
        ["cold_stop_str must end with think_end_str", "'</think>'", "'enough.'"],
    ),
    "cold_stop_str too long": (
        {"cold_stop_str": "so " * 70 + "</think>"},
        ["cold_stop_str without think_end_str must be 1 to 63 tokens"],
    ),
    "budget negative": (
        {"max_thinking_steps": -1},
        ["soft_thinking.max_thinking_steps must be an integer from 0 to", "-1"],
    ),
    "budget fraction": (
        {"max_thinking_steps": 0.5},
        ["soft_thinking.max_thinking_steps must be an integer", "0.5"],
    ),
    "stop_in_thinking 'no'": (
        {"stop_in_thinking": "no"},
        ["soft_thinking.stop_in_thinking must be true or false", "'no'"],
    ),
    "think_end_str empty": ({"think_end_str": ""}, ["soft_thinking.think_end_str", "non-empty"]),
    "think_end_str number": ({"think_end_str": 6}, ["soft_thinking.think_end_str", "string"]),
    "noise unknown": ({"noise": "gauss"}, ["soft_thinking.noise", "'gumbel'", "'gauss'"]),
    "noise object": ({"noise": {}}, ["soft_thinking.noise", "'gumbel'", "{}"]),
    "noise boolean": ({"noise": True}, ["soft_thinking.noise", "'none'", "True"]),
    "gumbel temperature 0": (
        {"gumbel_softmax_temperature": 0},
        ["soft_thinking.gumbel_softmax_temperature must be a number from 1e-06", "got 0"],
    ),
    "dirichlet alpha negative": (
        {"noise": "dirichlet", "dirichlet_alpha": -1},
        ["soft_thinking.dirichlet_alpha must be a number from 1e-06", "got -1"],
    ),
    "answer temperature negative": (
        {"after_thinking_temperature": -1},
        ["soft_thinking.after_thinking_temperature must be a number from 0"],
    ),
    "answer top_p 0": (
        {"after_thinking_top_p": 0},
        ["soft_thinking.after_thinking_top_p must be a number above 0", "1"],
    ),
    "answer top_p 2": ({"after_thinking_top_p": 2}, ["after_thinking_top_p must be a number"]),
    "answer top_k 0": (
        {"after_thinking_top_k": 0},
        ["soft_thinking.after_thinking_top_k must be an integer from 1", "(or -1)"],
    ),
    "answer min_p 2": ({"after_thinking_min_p": 2}, ["after_thinking_min_p must be", "0 to 1"]),
    "return_concepts 1": ({"return_concepts": 1}, ["soft_thinking.return_concepts", "true or"]),
}
"""By name: the value of ``soft_thinking``, and what the message must contain."""

GENERATE_ONLY = {
    "nested and flat differ": (
        {"soft_thinking": {"max_topk": 3}, "max_topk": 4},
        {},
        ["max_topk is given twice with different values", "give it once"],
    ),
    "flat max_topk": ({"soft_thinking": True, "max_topk": 33}, {}, ["max_topk must be", "to 32"]),
    "flat, not soft": ({"max_topk": "3"}, {}, ["max_topk must be an integer from 1 to 32", "'3'"]),
    "flat noise": ({"noise": 1}, {}, ["noise must be one of", "'gumbel'"]),
    "given in two places": (
        {"soft_thinking": True, "custom_params": {"soft_thinking": {"max_topk": 3}}},
        {},
        ["soft_thinking is given twice", "custom_params"],
    ),
    "custom_params number": (
        {"soft_thinking": True, "custom_params": 5},
        {},
        ["custom_params must be an object", "int"],
    ),
    "custom_params string": (
        {"soft_thinking": True, "custom_params": "ab"},
        {},
        ["custom_params must be an object", "str"],
    ),
    "beam_width": (
        {"soft_thinking": True, "beam_width": 2},
        {},
        ["cannot be combined with beam_width", "remove it"],
    ),
    "return_sampling_mask": (
        {"soft_thinking": True},
        {"return_sampling_mask": True},
        ["cannot be combined with return_sampling_mask"],
    ),
    "session": (
        {"soft_thinking": True},
        {"session_params": {"id": "1", "rid": "2"}},
        ["soft_thinking.start must be 'thinking' or 'answer'"],
    ),
    "input_embeds": (
        {"soft_thinking": True},
        {"text": None, "input_embeds": [[0.0] * 160] * 3},
        ["input_embeds"],  # SGLang's own check comes first while it has a prefix cache
    ),
    "seed too large": (
        {"soft_thinking": True, "sampling_seed": 2**63},
        {},
        ["sampling_seed must be an integer", "2**63"],
    ),
    "seed string": (
        {"soft_thinking": True, "sampling_seed": "1"},
        {},
        ["sampling_seed must be an integer", "'1'"],
    ),
    "seed boolean": ({"soft_thinking": True, "sampling_seed": True}, {}, ["sampling_seed", "True"]),
    "negative temperature": (
        {"soft_thinking": True, "temperature": -1},
        {},
        ["temperature must be a non-negative finite number"],
    ),
    "one of a batch": (
        [{"soft_thinking": True}, {"soft_thinking": {"max_topk": 0}}],
        {"text": [PROMPT, PROMPT]},
        ["soft_thinking.max_topk must be an integer from 1 to 32"],
    ),
}
"""By name: sampling parameters, other fields, and what the message must contain."""


@pytest.fixture(scope="module", autouse=True)
def before(client):
    """A soft request's answer before all malformed ones."""
    return chat(client, TRACED).choices[0]


def _generate(http, sampling, **own):
    request = {"text": PROMPT, "sampling_params": sampling, **own}
    return http.post("/generate", json=request)


def _check(message, expected):
    for words in expected:
        assert words in message


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("ask", [chat, complete], ids=["chat", "completions"])
def test_malformed_openai_request(client, ask, stream, name):
    value, expected = MALFORMED[name]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, value, stream=stream, max_tokens=4)
    _check(caught.value.message, expected)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_generate_request(http, name):
    value, expected = MALFORMED[name]
    response = _generate(http, {"max_new_tokens": 4, "soft_thinking": value})
    assert response.status_code == 400
    _check(response.json()["error"]["message"], expected)


@pytest.mark.parametrize("name", GENERATE_ONLY)
def test_combination_that_generate_refuses(http, name):
    sampling, own, expected = GENERATE_ONLY[name]
    response = _generate(http, sampling, **own)
    assert response.status_code == 400
    error = response.json()["error"]
    if isinstance(error, str):  # of SGLang's own schema, for a field of its own
        assert "seed" in name and error.endswith("expected i64")
    else:
        _check(error["message"], expected)


def test_malformed_generate_stream(http):
    response = _generate(http, {"soft_thinking": {"max_topk": 0}}, stream=True)
    assert response.status_code == 200  # stock SGLang: the status is sent before the check
    assert '"code":400' in response.text
    assert "soft_thinking.max_topk must be an integer from 1 to 32" in response.text


def test_seed_out_of_range_in_chat(client):
    with pytest.raises(openai.BadRequestError, match="sampling_seed must be an integer"):
        chat(client, True, seed=2**63)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e999"])
def test_number_that_json_does_not_have(http, literal):
    soft = f'{{"early_stopping_entropy_threshold": {literal}}}'
    response = http.post(
        "/generate",
        content=f'{{"text": "1", "sampling_params": {{"soft_thinking": {soft}}}}}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 400


def test_malformed_request_does_not_disturb_its_neighbours(client):
    stream = iter(chat(client, TRACED, stream=True))
    next(stream)
    with pytest.raises(openai.BadRequestError):
        chat(client, {"max_topk": 0})
    assert [choice for chunk in stream for choice in chunk.choices][-1].finish_reason == "stop"


def test_server_answers_as_before(client, server, before):
    assert server.alive
    assert server.is_healthy()
    after = chat(client, TRACED).choices[0]
    assert after.message == before.message
    assert same_trace(answer_of(after), answer_of(before))
