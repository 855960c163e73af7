"""Where the field may stand in a body: it is found, and nothing looks like it and is not."""

import json

import pytest

from soft_sglang.carriers import CONTAINERS, agreed, is_asked, may_have_field, take_field

FIELD = {"max_topk": 3}


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name != "metadata"])
@pytest.mark.parametrize("beside", [{}, {"enable_thinking": True}], ids=["alone", "beside another"])
def test_it_is_taken_out_of_its_container(container, beside):
    body = {"model": "m", container: {**beside, "soft_thinking": FIELD}}
    rest, field = take_field(body)
    assert field == FIELD
    assert rest == ({"model": "m", container: beside} if beside else {"model": "m"})
    assert body[container]["soft_thinking"] == FIELD, "the caller's object was changed"


@pytest.mark.parametrize(("text", "value"), [("true", True), ('{"max_topk": 3}', FIELD)])
def test_metadata_holds_json_and_is_left_to_the_client(text, value):
    body = {"metadata": {"soft_thinking": text}}
    assert take_field(body) == (body, value)


@pytest.mark.parametrize("value", [True, False, FIELD, [], "yes", 1])
def test_it_is_taken_from_the_top(value):
    assert take_field({"soft_thinking": value, "n": 1}) == ({"n": 1}, value)


def test_a_route_that_reads_sampling_parameters_keeps_them():
    body = {"sampling_params": {"soft_thinking": FIELD, "max_topk": 3}}
    assert take_field(body, reads_sampling=True) == (body, None)


def test_null_is_not_given():
    body = {"soft_thinking": None, "chat_template_kwargs": {"soft_thinking": True}}
    assert take_field(body) == ({}, True)


def test_the_same_value_twice_is_one_value():
    body = {"soft_thinking": FIELD, "metadata": {"soft_thinking": json.dumps(FIELD)}}
    assert take_field(body)[1] == FIELD


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"soft_thinking": FIELD, "chat_template_kwargs": {"soft_thinking": True}},
            ["given twice", "chat_template_kwargs.soft_thinking", "give it once"],
        ),
        ({"soft_thinking": True, "options": {"soft_thinking": 1}}, ["given twice", "options"]),
        ({"soft_thinking": False, "metadata": {"soft_thinking": "true"}}, ["given twice"]),
        ({"metadata": {"soft_thinking": "{"}}, ["metadata.soft_thinking", "string of JSON", "'{'"]),
        ({"softthinking": True}, ["'softthinking'", "did you mean 'soft_thinking'"]),
        ({"soft-thinking": FIELD}, ["'soft-thinking'", "did you mean"]),
        ({"SoftThinking": FIELD}, ["'SoftThinking'", "did you mean"]),
        ({"enable_soft_thinking": True}, ["'enable_soft_thinking'", "did you mean"]),
        (
            {"chat_template_kwargs": {"soft thinking": True}},
            ["chat_template_kwargs has a field 'soft thinking'"],
        ),
        ({"extra_body": {"soft_thinking": True}}, ["extra_body is an argument", "openai client"]),
        ({"soft_thinking": True, "max_topk": 3}, ["max_topk is a parameter of soft_thinking"]),
        ({"soft_thinking": {}, "max_topk": 3}, ["max_topk is a parameter of soft_thinking"]),
        *(
            ({name: {"soft_thinking": True, "noise": "gumbel"}}, ["noise is a parameter"])
            for name in CONTAINERS
            if name != "metadata"
        ),
        ({"session_params": [{"soft_thinking": True}]}, ["in a list of session_params"]),
        ({"instances": [{"text": "a"}, {"soft_thinking": False}]}, ["in a list of instances"]),
        ({"instances": [{"softthinking": True}]}, ["instances has a field 'softthinking'"]),
    ],
    ids=str,
)
def test_what_is_refused(body, words):
    with pytest.raises(ValueError, match="soft_thinking") as caught:
        take_field(body)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"max_topk": 3, "noise": "gumbel"},
        {"messages": [{"role": "user", "content": "softthinking, soft_thinking"}]},
        {"metadata": "soft_thinking", "session_params": [{"id": "1"}], "options": None},
        {"soft": 1, "thinking": {"type": "enabled"}, "metadata": {"topic": "soft thinking"}},
    ],
    ids=str,
)
def test_others_are_left_alone(body):
    assert take_field(body) == (body, None)


def test_the_names_of_carriers_are_in_the_error():
    with pytest.raises(ValueError, match="in the request and in custom_params"):
        agreed([("the request", True), ("sampling_params", None), ("custom_params", False)])


@pytest.mark.parametrize("key", ["soft_thinking", "Soft-Thinking", "enable_soft_thinking"])
@pytest.mark.parametrize("letter", [None, *range(4)])
def test_no_body_with_the_field_is_passed_over(key, letter):
    text = json.dumps({key: True})
    if letter is not None:  # JSON may write any letter as its code
        place = text.lower().index("soft") + letter
        text = f"{text[:place]}\\u{ord(text[place]):04x}{text[place + 1 :]}"
    assert key in json.loads(text)
    assert may_have_field(text.encode())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_nor_one_in_another_encoding(encoding):
    assert may_have_field('{"soft_thinking": true}'.encode(encoding))


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        *[(value, True) for value in (True, {}, {"enabled": True}, {"max_topk": 3}, [], "x", 0)],
        *[(value, False) for value in (None, False, {"enabled": False})],
    ],
    ids=str,
)
def test_what_asks(field, asked):
    assert is_asked(field) is asked


@pytest.mark.parametrize("body", [b'{"text": "what is 3*4"}', b'{"text": "caf\\u00e9"}'])
def test_most_bodies_are_not_parsed(body):
    assert not may_have_field(body)
