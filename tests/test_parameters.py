"""Parameters of requests and servers: what is allowed, what is refused and how, what travels."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from soft_sglang.fields import Field, Kind
from soft_sglang.options import DEFAULT_MAX_TOPK, ServerOptions
from soft_sglang.parameters import (
    FLAT_NAMES,
    REQUEST_KEY,
    SoftRequest,
    SoftThinkingParams,
    read_request,
)
from soft_sglang.request_fields import NOISES

NAN, INF = float("nan"), float("inf")
INT32 = 2**31 - 1
OFF, ON = ServerOptions(), ServerOptions(enable_soft_thinking=True)

VALID: dict[str, list[Any]] = {
    "enabled": [True],
    "max_topk": [1, 2, 10, 32],
    "early_stopping_entropy_threshold": [0, 0.0, 1e-30, 0.01, 3, 1e6],
    "early_stopping_length_threshold": [1, 256, INT32],
    "think_end_str": ["</think>", " ", "\n", "思", "🤔", "\0"],
    "after_thinking_temperature": [0, 0.0, 0.6, 2, 1e6],
    "after_thinking_top_p": [1e-9, 0.95, 1, 1.0],
    "after_thinking_top_k": [-1, 1, 30, INT32],
    "after_thinking_min_p": [0, 0.0, 0.5, 1, 1.0],
    "noise": ["none", "gumbel", "dirichlet"],
    "gumbel_softmax_temperature": [1e-6, 0.5, 1, 1e6],
    "dirichlet_alpha": [1e-6, 1, 50.5, 1e6],
    "return_concepts": [True, False],
    "return_entropies": [True, False],
}
"""But for the policy and its parameters: they are in test_policies."""

NOT_NUMBERS: list[Any] = [True, False, "1", "", [1], {"a": 1}, NAN, INF, -INF]
NOT_INTEGERS: list[Any] = [*NOT_NUMBERS, 1.0, 1.5]

INVALID: dict[str, tuple[str, list[Any]]] = {
    "enabled": ("true or false", [0, 1, 1.0, "true", "", [], {}]),
    "max_topk": ("an integer from 1 to 32", [*NOT_INTEGERS, 0, -1, 33, 10**30]),
    "early_stopping_entropy_threshold": (
        "a number from 0 to 1e+06",
        [*NOT_NUMBERS, -1e-30, -1, 1.1e6, 10**400],
    ),
    "early_stopping_length_threshold": (
        "an integer from 1 to 2147483647",
        [*NOT_INTEGERS, 0, -1, INT32 + 1],
    ),
    "think_end_str": (
        "a non-empty string of valid Unicode",
        ["", 3, 0.5, True, ["</think>"], {}, "\ud800", "a\udfffb"],
    ),
    "after_thinking_temperature": ("a number from 0 to 1e+06", [*NOT_NUMBERS, -0.1, 1e7]),
    "after_thinking_top_p": ("a number above 0 and at most 1", [*NOT_NUMBERS, 0, 0.0, -1, 1.001]),
    "after_thinking_top_k": (
        "an integer from 1 to 2147483647 (or -1)",
        [*NOT_INTEGERS, 0, -2, INT32 + 1],
    ),
    "after_thinking_min_p": ("a number from 0 to 1", [*NOT_NUMBERS, -0.001, 1.001]),
    "noise": (
        "one of 'none', 'gumbel', 'dirichlet'",
        ["", "Gumbel", "normal", True, 1, ["gumbel"], {"gumbel": 1}],
    ),
    "gumbel_softmax_temperature": ("a number from 1e-06 to 1e+06", [*NOT_NUMBERS, 0, -1, 1e7]),
    "dirichlet_alpha": ("a number from 1e-06 to 1e+06", [*NOT_NUMBERS, 0, 0.0, -1, 1e7]),
    "return_concepts": ("true or false", [0, 1, "false", "", [], {}]),
    "return_entropies": ("true or false", [0, 1, "false", "", [], {}]),
}


def cases(table: dict[str, list[Any]]) -> Any:
    return pytest.mark.parametrize(
        ("name", "value"), [(name, value) for name in table for value in table[name]]
    )


def invalid_cases(skip: str = "") -> Any:
    return pytest.mark.parametrize(
        ("name", "allowed", "value"),
        [
            (name, allowed, value)
            for name, (allowed, values) in INVALID.items()
            for value in values
            if name != skip
        ],
    )


def soft(field: Any = True, flat: dict[str, Any] | None = None, options: ServerOptions = OFF):
    """A request that must be soft."""
    request = read_request(field, flat or {}, options)
    assert request is not None
    return request


def refusal(field: Any, flat: dict[str, Any] | None = None, options: ServerOptions = OFF) -> str:
    """The error that a request must get."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the callers look at its text
        read_request(field, flat or {}, options)
    return str(error.value)


def test_every_field_is_tested() -> None:
    resolved = {"think_end_id", "seed", "seeded", "separate_answer"}
    names = set(SoftThinkingParams.__annotations__) - resolved
    names = {name for name in names if not name.startswith("policy")}
    assert set(VALID) == set(INVALID) == names | {"enabled", "think_end_str"}


# Values.


@cases(VALID)
def test_valid(name: str, value: Any) -> None:
    request = soft({name: value})
    given = {} if name == "enabled" else {name: value}
    assert request.given == given
    assert soft(True, given).given == given


@invalid_cases()
def test_invalid(name: str, allowed: str, value: Any) -> None:
    message = refusal({name: value})
    assert message.startswith(f"{REQUEST_KEY}.{name} must be {allowed}, got ")


@invalid_cases(skip="enabled")
@pytest.mark.parametrize("field", [True, False, None, {}])
def test_invalid_beside_temperature(field: Any, name: str, allowed: str, value: Any) -> None:
    assert refusal(field, {name: value}).startswith(f"{name} must be {allowed}, got ")


def test_a_discrete_request_is_checked_too() -> None:
    assert "max_topk" in refusal({"enabled": False, "max_topk": 0})


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refusal({"noise": "x" * 10_000})) < 200


@pytest.mark.parametrize("limit", [1, 5, 1024])
def test_max_topk_is_limited_by_the_server(limit: int) -> None:
    options = ServerOptions(max_topk=limit)
    assert soft({"max_topk": limit}, options=options).given == {"max_topk": limit}
    assert f"from 1 to {limit}" in refusal({"max_topk": limit + 1}, options=options)
    assert f"from 1 to {limit}" in refusal(True, {"max_topk": limit + 1}, options=options)


# Keys.


@pytest.mark.parametrize("value", [1, "x", None, True, {}])
@pytest.mark.parametrize(
    "key", ["maxtopk", "MAX_TOPK", "", "think_end_id", "seed", "separate_answer", "temperature"]
)
def test_unknown_key(key: str, value: Any) -> None:
    message = refusal({"max_topk": 3, key: value})
    assert message.startswith(f"{REQUEST_KEY} has the unknown field {key!r}; allowed are ")
    for name in VALID:
        assert name in message


def test_unknown_key_that_is_no_string() -> None:
    assert "unknown field '1'" in refusal({1: 2})


@pytest.mark.parametrize("field", ["true", "", 1, 0, 1.0, NAN, [], [True], ("max_topk", 3)])
def test_the_field_itself(field: Any) -> None:
    message = refusal(field)
    assert message.startswith(f"{REQUEST_KEY} must be true, false or an object of parameters, got ")
    assert type(field).__name__ in message


@pytest.mark.parametrize("name", VALID)
def test_none_is_absent(name: str) -> None:
    assert soft({name: None}).given == {}


def test_flat_names() -> None:
    assert set(VALID) - {"enabled", "return_entropies"} == FLAT_NAMES


def test_both_places() -> None:
    nested, flat = {"max_topk": 3, "noise": "gumbel"}, {"dirichlet_alpha": 2, "noise": "gumbel"}
    assert soft(nested, flat).given == {**nested, **flat}


def test_both_places_with_different_values() -> None:
    message = refusal({"max_topk": 3, "noise": "none"}, {"noise": "gumbel"})
    assert message.startswith("noise is given twice with different values")


def test_the_request_is_not_changed() -> None:
    field, flat = {"enabled": True, "max_topk": 3, "noise": None}, {"dirichlet_alpha": 2}
    before = json.dumps([field, flat])
    soft(field, flat)
    assert json.dumps([field, flat]) == before


# On and off.


@pytest.mark.parametrize(
    ("field", "by_default_off", "by_default_on"),
    [
        (None, False, True),
        (True, True, True),
        (False, False, False),
        ({}, True, True),
        ({"enabled": True}, True, True),
        ({"enabled": False}, False, False),
        ({"enabled": None}, True, True),
        ({"max_topk": 3}, True, True),
        ({"enabled": False, "max_topk": 3}, False, False),
    ],
)
@pytest.mark.parametrize("flat", [{}, {"noise": "gumbel"}])
def test_who_is_soft(
    field: Any, by_default_off: bool, by_default_on: bool, flat: dict[str, Any]
) -> None:
    assert (read_request(field, flat, OFF) is not None) == by_default_off
    assert (read_request(field, flat, ON) is not None) == by_default_on


# Defaults.


def test_defaults() -> None:
    assert soft().think_end_str == "</think>"
    assert soft().resolve(think_end_id=7, seed=-3, own={}) == SoftThinkingParams(
        max_topk=10,
        early_stopping_entropy_threshold=0.01,
        early_stopping_length_threshold=256,
        think_end_id=7,
        seed=-3,
        after_thinking_temperature=1.0,
        after_thinking_top_p=1.0,
        after_thinking_top_k=-1,
        after_thinking_min_p=0.0,
        separate_answer=False,
        noise="none",
        gumbel_softmax_temperature=0.5,
        dirichlet_alpha=1.0,
        return_concepts=False,
    )


OWN = {"temperature": 0.6, "top_p": 0.95, "top_k": 30, "min_p": 0.001, "max_new_tokens": 9}


def test_the_answer_is_sampled_with_the_requests_own_parameters() -> None:
    params = soft().resolve(0, 0, OWN)
    for name in ("temperature", "top_p", "top_k", "min_p"):
        assert getattr(params, f"after_thinking_{name}") == OWN[name]
    assert not params.separate_answer


def test_own_parameters_that_are_none_are_absent() -> None:
    params = soft().resolve(0, 0, dict.fromkeys(OWN))
    assert params == soft().resolve(0, 0, {})


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0), ("top_p", 0.5), ("top_k", 1), ("min_p", 0)]
)
def test_after_thinking_parameters(name: str, value: float) -> None:
    params = soft({f"after_thinking_{name}": value}).resolve(0, 0, OWN)
    assert params.separate_answer
    for other in ("temperature", "top_p", "top_k", "min_p"):
        expected = value if other == name else OWN[other]
        assert getattr(params, f"after_thinking_{other}") == expected


def test_what_is_given_is_kept() -> None:
    given = {name: values[-1] for name, values in VALID.items() if name != "enabled"}
    request = soft(given)
    params = request.resolve(1, 2, OWN)
    assert request.think_end_str == given.pop("think_end_str")
    for name, value in given.items():
        assert getattr(params, name) == value


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ServerOptions(), 10),
        (ServerOptions(max_topk=10), 10),
        (ServerOptions(max_topk=4), 4),
        (ServerOptions(max_topk=20, default_max_topk=20), 20),
        (ServerOptions(max_topk=20, default_max_topk=15), 15),
        (ServerOptions(max_topk=3, default_max_topk=15), 3),
    ],
)
def test_default_concept_size(options: ServerOptions, expected: int) -> None:
    assert options.concept_size == expected
    assert soft(options=options).resolve(0, 0, {}).max_topk == expected


def test_server_defaults() -> None:
    options = ServerOptions(think_end_str="<end>", default_noise="gumbel")
    request = soft(options=options)
    assert request.think_end_str == "<end>"
    assert request.resolve(0, 0, {}).noise == "gumbel"
    assert soft({"noise": "none"}, options=options).resolve(0, 0, {}).noise == "none"
    assert soft({"think_end_str": "x"}, options=options).think_end_str == "x"


@pytest.mark.parametrize("max_topk", [1, DEFAULT_MAX_TOPK, 1024])
def test_server_options(max_topk: int) -> None:
    assert ServerOptions(max_topk=max_topk).max_topk == max_topk


@pytest.mark.parametrize("max_topk", [0, -1, 1025, True, 2.0, "32", None, NAN])
def test_server_options_refuse_max_topk(max_topk: Any) -> None:
    with pytest.raises(ValueError, match="max_topk must be an integer from 1 to 1024, got "):
        ServerOptions(max_topk=max_topk)


@pytest.mark.parametrize("text", ["", None, 3, ["</think>"]])
def test_server_options_refuse_think_end_str(text: Any) -> None:
    with pytest.raises(ValueError, match="think_end_str must be a non-empty string"):
        ServerOptions(think_end_str=text)


# The way to the scheduler.


@pytest.mark.parametrize("seed", [0, -(2**63), 2**63 - 1])
def test_wire_round_trip(seed: int) -> None:
    given = {name: values[-1] for name, values in VALID.items() if name != "enabled"}
    params = soft(given).resolve(151935, seed, OWN)
    wire = params.to_wire()
    assert wire.pop("policy_parameters") == ()
    assert all(type(value) in (bool, int, float, str) for value in wire.values())
    wire["policy_parameters"] = []
    assert SoftThinkingParams.from_wire(json.loads(json.dumps(wire))) == params


# Words.


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (Field("x", Kind.BOOLEAN), "true or false"),
        (Field("x", Kind.INTEGER), "an integer"),
        (Field("x", Kind.INTEGER, low=1), "an integer of at least 1"),
        (Field("x", Kind.INTEGER, low=1, high=9, also=-1), "an integer from 1 to 9 (or -1)"),
        (Field("x", Kind.NUMBER, above=0), "a number above 0"),
        (Field("x", Kind.NUMBER, above=0, high=1), "a number above 0 and at most 1"),
        (Field("x", Kind.CHOICE, choices=("a", "b")), "one of 'a', 'b'"),
    ],
)
def test_words(field: Field, words: str) -> None:
    assert field.allowed() == words


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_no_bound_is_needed_to_refuse_what_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"^x must be a number, got "):
        Field("x", Kind.NUMBER).check(value)


# Anything at all.

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([v for values in VALID.values() for v in values])
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


def likely_values(name: str) -> st.SearchStrategy[Any]:
    return st.sampled_from(VALID[name]) | st.sampled_from(INVALID[name][1]) | json_values


fields = st.fixed_dictionaries({}, optional={name: likely_values(name) for name in VALID})
valid_fields = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in VALID.items()}
)
flats = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from(VALID[name]) | likely_values(name).filter(lambda v: v is not None)
        for name in sorted(FLAT_NAMES)
    },
)


def is_allowed(name: str, value: Any) -> bool:
    """What the documentation says, once more."""
    number = type(value) in (int, float) and value == value
    integer = type(value) is int
    match name:
        case "max_topk":
            return integer and 1 <= value <= 32
        case "early_stopping_length_threshold":
            return integer and 1 <= value < 2**31
        case "after_thinking_top_k":
            return integer and (value == -1 or 1 <= value < 2**31)
        case "early_stopping_entropy_threshold" | "after_thinking_temperature":
            return number and 0 <= value <= 1e6
        case "after_thinking_top_p":
            return number and 0 < value <= 1
        case "after_thinking_min_p":
            return number and 0 <= value <= 1
        case "gumbel_softmax_temperature" | "dirichlet_alpha":
            return number and 1e-6 <= value <= 1e6
        case "think_end_str":
            return isinstance(value, str) and len(value) > 0
        case "noise":
            return value in NOISES
        case "return_concepts" | "return_entropies":
            return type(value) is bool
        case _:
            return False


@settings(deadline=None, derandomize=True, max_examples=400)
@given(json_values | fields | valid_fields, st.just({}) | flats, st.sampled_from([OFF, ON]))
@example({"max_topk": 10**400}, {}, OFF)
@example({"dirichlet_alpha": -(10**400)}, {"dirichlet_alpha": -(10**400)}, ON)
def test_anything_is_accepted_or_refused(
    field: Any, flat: dict[str, Any], options: ServerOptions
) -> None:
    refused, request = "", None
    try:
        request = read_request(field, flat, options)
    except ValueError as error:
        refused = str(error)
    if refused:
        assert any(name in refused for name in (REQUEST_KEY, *flat))
        return
    assert all(is_allowed(name, value) for name, value in flat.items())
    if request is None:
        return
    assert isinstance(request, SoftRequest)
    assert all(is_allowed(name, value) for name, value in request.given.items())
    params = request.resolve(think_end_id=3, seed=1, own=OWN)
    assert SoftThinkingParams.from_wire(params.to_wire()) == params


@settings(deadline=None, derandomize=True)
@given(valid_fields)
def test_everything_valid_is_accepted(field: dict[str, Any]) -> None:
    assert read_request(field, {}, OFF) is not None
