"""Every route: those that generate take the field and give its answer, the others refuse it."""

import json
from importlib import metadata

import anthropic
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
    complete,
    same_trace,
)
from packaging.version import Version

MESSAGES = [{"role": "user", "content": QUESTION}]
SAMPLING = {**WIDE, "max_new_tokens": MAX_TOKENS}
OLLAMA = {**WIDE, "num_predict": MAX_TOKENS}
BAD = {"max_topk": 0}
BAD_WORDS = "soft_thinking.max_topk must be an integer from 1 to 32"

REQUESTS = {
    "/v1/chat/completions": {"model": MODEL, "messages": MESSAGES, "max_tokens": 3},
    "/v1/completions": {"model": MODEL, "prompt": PROMPT, "max_tokens": 3},
    "/invocations": {"model": MODEL, "messages": MESSAGES, "max_tokens": 3},
    "/v1/responses": {"model": MODEL, "input": QUESTION, "max_output_tokens": 3},
    "/v1/messages": {"model": MODEL, "messages": MESSAGES, "max_tokens": 3},
    "/generate": {"text": PROMPT, "sampling_params": {"max_new_tokens": 3}},
    "/vertex_generate": {
        "instances": [{"text": PROMPT}],
        "parameters": {"sampling_params": {"max_new_tokens": 3}},
    },
    "/api/chat": {"model": MODEL, "messages": MESSAGES, "options": {"num_predict": 3}},
    "/api/generate": {"model": MODEL, "prompt": PROMPT, "options": {"num_predict": 3}},
}
"""A short request to every route that generates text."""
BROKEN = set() if Version(metadata.version("sglang")) >= Version("0.5.23") else {"/api/chat"}
"""Routes that fail on older SGLangs, whatever they are asked."""
NOTHING_GENERATED = {
    "/encode": {"text": "a"},
    "/classify": {"text": "a"},
    "/v1/embeddings": {"model": MODEL, "input": "a"},
    "/v1/classify": {"model": MODEL, "input": "a"},
    "/v1/score": {"model": MODEL, "query": "a", "items": ["b"], "label_token_ids": [1]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/decisions": {"model": MODEL, "input": "a"},
    "/v1/systemone": {"model": MODEL},
}
TOKENS_ONLY = {
    "/tokenize": {"prompt": "a"},
    "/v1/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [7]},
    "/v1/detokenize": {"tokens": [7]},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": MESSAGES},
}
TRANSCRIPTION = {"/v1/audio/transcriptions", "/v1/realtime"}
"""Of audio: a form, which is refused below, and a WebSocket, whose messages SGLang checks."""

ADMINISTRATION = {
    "/set_internal_state",
    "/flush_cache",
    "/add_external_corpus",
    "/remove_external_corpus",
    "/hicache/storage-backend/clear",
    "/hicache/storage-backend",
    "/start_profile",
    "/stop_profile",
    "/set_trace_level",
    "/freeze_gc",
    "/start_expert_distribution_record",
    "/stop_expert_distribution_record",
    "/dump_expert_distribution_record",
    "/update_weights_from_disk",
    "/init_weights_send_group_for_remote_instance",
    "/send_weights_to_remote_instance",
    "/init_weights_update_group",
    "/destroy_weights_update_group",
    "/update_weights_from_tensor",
    "/begin_weight_update",
    "/end_weight_update",
    "/update_weights_from_distributed",
    "/update_weights_from_ipc",
    "/update_weight_version",
    "/get_weights_by_name",
    "/release_memory_occupation",
    "/resume_memory_occupation",
    "/weights_checker",
    "/slow_down",
    "/pd_role_switch",
    "/load_lora_adapter",
    "/load_lora_adapter_from_tensors",
    "/unload_lora_adapter",
    "/open_session",
    "/close_session",
    "/configure_logging",
    "/abort_request",
    "/parse_function_call",
    "/separate_reasoning",
    "/pause_generation",
    "/continue_generation",
    "/v1/responses/{response_id}/cancel",
    "/api/show",
    "/scale_elastic_ep",
}
"""Routes that take a body and serve no model."""


def _routes(router):
    """The routes of a router, and of those that are included in it."""
    for route in router.routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from _routes(included)


def _with_bodies():
    """Paths of SGLang's application that a client can send something to; a WebSocket is one."""
    from sglang.srt.entrypoints.http_server import app

    paths = set()
    for route in _routes(app):
        methods = getattr(route, "methods", None)
        if methods is None or methods & {"POST", "PUT", "PATCH"}:
            paths.add(route.path)
    return paths


def test_every_route_was_decided():
    groups = (REQUESTS, NOTHING_GENERATED, TOKENS_ONLY, TRANSCRIPTION, ADMINISTRATION)
    found = _with_bodies()
    assert set(REQUESTS) <= found, "the routes were not found"
    assert found - set().union(*groups) == set(), "a route that nobody decided about"


def test_the_product_knows_them():
    from soft_sglang.patches.front_end import routes

    assert set(REQUESTS) == {*routes.IN_THE_MODEL, *routes.generating_routes()}
    assert set(NOTHING_GENERATED) == set(routes.NOTHING_GENERATED)
    assert set(TOKENS_ONLY) == set(routes.TOKENS_ONLY)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", REQUESTS)
def test_a_bad_value_is_a_400(http, path, stream):
    request = {**REQUESTS[path], "soft_thinking": BAD}
    if path == "/vertex_generate":
        request["parameters"] = {**request["parameters"], "stream": stream}
    else:
        request["stream"] = stream
    answer = http.post(path, json=request)
    assert answer.status_code == 400
    assert BAD_WORDS in answer.text


@pytest.mark.parametrize("path", REQUESTS)
def test_two_carriers_that_disagree_are_a_400(http, path):
    request = {
        **REQUESTS[path],
        "soft_thinking": True,
        "metadata": {"soft_thinking": "false"},
    }
    answer = http.post(path, json=request)
    assert answer.status_code == 400
    assert "soft_thinking is given twice with different values" in answer.text


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("spelling", ["softthinking", "soft-thinking"])
def test_a_near_spelling_is_a_400(http, path, spelling):
    answer = http.post(path, json={**REQUESTS[path], spelling: True})
    assert answer.status_code == 400
    assert f"{spelling!r}; did you mean 'soft_thinking'?" in answer.text


@pytest.mark.parametrize("path", sorted(REQUESTS.keys() - BROKEN))
def test_without_the_field_there_is_no_answer(http, path):
    answer = http.post(path, json=REQUESTS[path])
    assert answer.status_code == 200
    assert "soft_thinking" not in answer.text


@pytest.mark.parametrize("path", NOTHING_GENERATED)
@pytest.mark.parametrize("field", [True, {}], ids=str)
def test_routes_that_generate_nothing_refuse(http, path, field):
    answer = http.post(path, json={**NOTHING_GENERATED[path], "soft_thinking": field})
    assert answer.status_code == 400
    assert f"soft_thinking is not available on {path}" in answer.text


def test_transcriptions_refuse(http):
    form = {"files": {"file": b"RIFF"}, "data": {"soft_thinking": "true"}}
    answer = http.post("/v1/audio/transcriptions", **form)
    assert answer.status_code == 400
    assert "soft_thinking is not available on /v1/audio/transcriptions" in answer.text
    form = {"files": {"file": ("soft-thinking-talk.wav", b"RIFF")}, "data": {"model": MODEL}}
    assert "soft_thinking" not in http.post("/v1/audio/transcriptions", **form).text


@pytest.mark.parametrize("path", TOKENS_ONLY)
def test_routes_that_only_count_tokens_do_not_mind(http, path):
    plain = http.post(path, json=TOKENS_ONLY[path])
    assert plain.status_code == 200
    assert http.post(path, json={**TOKENS_ONLY[path], "soft_thinking": True}).text == plain.text


@pytest.fixture(scope="module")
def by_chat(client):
    """Answers of chat, by name."""
    return {
        name: chat(client, soft).choices[0]
        for name, soft in [("think_end", TRACED), ("cold_stop", COLD)]
    }


SOFT = pytest.mark.parametrize(
    ("soft", "end"), [(TRACED, "think_end"), (COLD, "cold_stop")], ids=["think_end", "cold_stop"]
)


def _check(answer, by_chat, end):
    check_answer(answer, end=end)
    assert same_trace(answer, answer_of(by_chat[end]))


CHAT_CARRIERS = {
    "chat_template_kwargs": {"chat_template_kwargs": {"soft_thinking": TRACED}},
    "metadata": {"metadata": {"soft_thinking": json.dumps(TRACED)}},
    "sampling_params": {"sampling_params": {"soft_thinking": TRACED}},
    "custom_params": {"custom_params": {"soft_thinking": TRACED}},
}


@pytest.mark.parametrize("carrier", CHAT_CARRIERS)
@pytest.mark.parametrize("ask", [chat, complete], ids=["chat", "completions"])
def test_other_carriers_of_chat_and_completions(client, by_chat, ask, carrier):
    choice = ask(client, extra_body=CHAT_CARRIERS[carrier]).choices[0]
    _check(answer_of(choice), by_chat, "think_end")


def test_template_arguments_beside_it_count(client):
    arguments = {"soft_thinking": TRACED, "enable_thinking": False}
    choice = chat(client, extra_body={"chat_template_kwargs": arguments}).choices[0]
    assert answer_of(choice)["end"] == "closed"


@SOFT
@pytest.mark.parametrize("carrier", ["soft_thinking", "metadata", "chat_template_kwargs"])
def test_responses(client, by_chat, soft, end, carrier):
    response = _respond(client, soft, carrier)
    _check(response.to_dict()["soft_thinking"], by_chat, end)
    assert response.output_text.strip() == by_chat[end].message.content.strip()
    (reasoning,) = [item for item in response.output if item.type == "reasoning"]
    thought = by_chat[end].message.reasoning_content
    assert reasoning.content[0].text.strip() == thought.strip()


@SOFT
def test_streamed_responses(client, by_chat, soft, end):
    events = [event.to_dict() for event in _respond(client, soft, "soft_thinking", stream=True)]
    *before, last = [event for event in events if _has_answer(event)]
    assert last["type"] == "response.completed"
    _check(last["response"]["soft_thinking"], by_chat, end)
    told = [step for event in before for step in event["soft_thinking"]["concepts"]]
    assert {event["type"].rpartition(".")[2] for event in before} == {"delta"}
    steps = last["response"]["soft_thinking"]["concepts"]
    assert told == steps[: len(told)]
    assert len(before) > 1, "all steps came at once"


def _respond(client, soft, carrier, **own):
    value = json.dumps(soft) if carrier == "metadata" else soft
    body = {carrier: value} if carrier == "soft_thinking" else {carrier: {"soft_thinking": value}}
    sampling = {name: WIDE[name] for name in ("top_k", "min_p")}
    return client.responses.create(
        model=MODEL,
        input=QUESTION,
        max_output_tokens=MAX_TOKENS,
        temperature=WIDE["temperature"],
        top_p=WIDE["top_p"],
        extra_body={**sampling, **body},
        **own,
    )


def _has_answer(event):
    return "soft_thinking" in event or "soft_thinking" in (event.get("response") or {})


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        ({"background": True}, "soft_thinking cannot be combined with background"),
        ({"tools": [{"type": "web_search"}]}, "with the built-in tool 'web_search'"),
    ],
    ids=["background", "tool"],
)
@pytest.mark.parametrize("field", [True, {}], ids=str)
def test_responses_whose_answer_would_be_lost_are_refused(http, beside, words, field):
    request = {**REQUESTS["/v1/responses"], "soft_thinking": field, **beside}
    answer = http.post("/v1/responses", json=request)
    assert answer.status_code == 400
    assert words in answer.text


@pytest.fixture(scope="module")
def claude(server):
    """The real client of the Messages API, at the server."""
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def by_messages_alone(http):
    """What ``/generate`` gives for the sampling of :func:`_message`, by name."""
    return {
        name: http.post(
            "/generate",
            json={"text": PROMPT, "sampling_params": {**SAMPLING, "min_p": 0.001}, **own},
        ).json()["meta_info"]["soft_thinking"]
        for name, own in [
            ("think_end", {"soft_thinking": TRACED}),
            ("cold_stop", {"soft_thinking": COLD}),
        ]
    }


def _message(claude, soft, **own):
    # the API has no min_p: that of the model's generation_config.json holds
    sampling = {name: WIDE[name] for name in ("temperature", "top_p", "top_k")}
    return claude.messages.create(
        model=MODEL,
        max_tokens=MAX_TOKENS,
        messages=MESSAGES,
        extra_body={**sampling, "soft_thinking": soft},
        **own,
    )


@SOFT
def test_messages(claude, by_messages_alone, soft, end):
    message = _message(claude, soft)
    answer = message.to_dict()["soft_thinking"]
    check_answer(answer, end=end)
    assert same_trace(answer, by_messages_alone[end])
    assert [block.type for block in message.content] == ["thinking", "text"]


@SOFT
def test_streamed_messages(claude, by_messages_alone, soft, end):
    events = [event.to_dict() for event in _message(claude, soft, stream=True)]
    *before, last = [event for event in events if "soft_thinking" in event]
    assert {event["type"] for event in before} == {"content_block_delta"}
    assert last["type"] == "message_delta"
    steps = [step for e in (*before, last) for step in e["soft_thinking"].get("concepts", [])]
    answer = {**last["soft_thinking"], "concepts": steps}
    check_answer(answer, end=end)
    assert same_trace(answer, by_messages_alone[end])
    assert len(before) > 1, "all steps came at once"


@SOFT
@pytest.mark.parametrize(
    "carrier",
    [
        lambda soft: {"soft_thinking": soft},
        lambda soft: {"session_params": {"soft_thinking": soft}},
        lambda soft: {"metadata": {"soft_thinking": json.dumps(soft)}},
    ],
    ids=["top level", "session_params", "metadata"],
)
def test_generate(http, by_chat, soft, end, carrier):
    request = {"text": PROMPT, "sampling_params": SAMPLING, **carrier(soft)}
    output = http.post("/generate", json=request).json()
    _check(output["meta_info"]["soft_thinking"], by_chat, end)


def test_one_field_for_a_batch(http, by_chat):
    request = {"text": [PROMPT, PROMPT], "sampling_params": SAMPLING, "soft_thinking": TRACED}
    for output in http.post("/generate", json=request).json():
        _check(output["meta_info"]["soft_thinking"], by_chat, "think_end")


def test_a_field_for_each_of_a_batch(http, by_chat):
    each = [{**SAMPLING, "soft_thinking": soft} for soft in (COLD, False)]
    request = {"text": [PROMPT, PROMPT], "sampling_params": each}
    soft, discrete = http.post("/generate", json=request).json()
    _check(soft["meta_info"]["soft_thinking"], by_chat, "cold_stop")
    assert "soft_thinking" not in discrete["meta_info"]
    disagreeing = http.post("/generate", json={**request, "soft_thinking": COLD})
    assert disagreeing.status_code == 400
    assert "in the request and in sampling_params" in disagreeing.text


def test_sagemaker(http, by_chat):
    request = {"model": MODEL, "messages": MESSAGES, "max_tokens": MAX_TOKENS, **WIDE}
    answer = http.post("/invocations", json={**request, "soft_thinking": TRACED}).json()
    _check(answer["choices"][0]["soft_thinking"], by_chat, "think_end")


@pytest.mark.parametrize("place", ["top level", "parameters", "session_params", "sampling_params"])
def test_vertex(http, by_chat, place):
    parameters = {"sampling_params": {**SAMPLING}}
    request = {"instances": [{"text": PROMPT}, {"text": PROMPT}], "parameters": parameters}
    places = {
        "top level": request,
        "parameters": parameters,
        "session_params": parameters.setdefault("session_params", {}),
        "sampling_params": parameters["sampling_params"],
    }
    places[place]["soft_thinking"] = TRACED
    if place != "session_params":
        del parameters["session_params"]
    for prediction in http.post("/vertex_generate", json=request).json()["predictions"]:
        _check(prediction["meta_info"]["soft_thinking"], by_chat, "think_end")


def test_vertex_has_one_field_for_all_instances(http):
    request = {"instances": [{"text": PROMPT, "soft_thinking": True}]}
    answer = http.post("/vertex_generate", json=request)
    assert answer.status_code == 400
    assert "soft_thinking cannot stand in a list of instances" in answer.text


_OLLAMA = {"/api/chat": {"messages": MESSAGES}, "/api/generate": {"prompt": PROMPT}}
OLLAMA_ROUTES = pytest.mark.parametrize(
    ("path", "question"), [(path, _OLLAMA[path]) for path in _OLLAMA if path not in BROKEN]
)


@OLLAMA_ROUTES
@pytest.mark.parametrize("inside", [False, True], ids=["top level", "options"])
def test_ollama(http, by_chat, path, question, inside):
    request = _ollama(question, inside, stream=False)
    answer = http.post(path, json=request).json()
    _check(answer["soft_thinking"], by_chat, "think_end")


@OLLAMA_ROUTES
def test_streamed_ollama(http, by_chat, path, question):
    lines = http.post(path, json=_ollama(question, False, stream=True)).text.splitlines()
    *before, last = [json.loads(line) for line in lines]
    assert last["done"]
    told = [part for part in before if "soft_thinking" in part]
    assert len(told) > 1, "all steps came at once"
    parts = [*told, last]
    steps = [step for part in parts for step in part["soft_thinking"].get("concepts", [])]
    _check({**last["soft_thinking"], "concepts": steps}, by_chat, "think_end")


def _ollama(question, inside, stream):
    options = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "num_predict": MAX_TOKENS}
    request = {"model": MODEL, **question, "stream": stream, "options": options}
    (options if inside else request)["soft_thinking"] = TRACED
    return request
