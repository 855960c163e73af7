"""Parameters of requests and servers: what is allowed, what is refused and how, what travels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import Distinct, vocabulary

from soft_sglang.fields import Field, Kind
from soft_sglang.kernels.table_rows import NO_LIMIT
from soft_sglang.markers import Vocabulary
from soft_sglang.options import DEFAULT_MAX_TOPK, ServerOptions
from soft_sglang.parameters import (
    FLAT_NAMES,
    REQUEST_KEY,
    SoftRequest,
    SoftThinkingParams,
    read_request,
)
from soft_sglang.request_fields import NOISES, STARTS
from soft_sglang.state_machine import ThoughtRules

NAN, INF = float("nan"), float("inf")
INT32 = 2**31 - 1
OFF, ON = ServerOptions(), ServerOptions(enable_soft_thinking=True)
TEXTS = ["</think>", " ", "\n", "思", "🤔", "\0"]
NOT_TEXTS: list[Any] = ["", 3, 0.5, True, ["</think>"], {}, "\ud800", "a\udfffb"]
NOT_BOOLEANS: list[Any] = [0, 1, "false", "", [], {}]

VALID: dict[str, list[Any]] = {
    "enabled": [True],
    "max_topk": [1, 2, 10, 32],
    "early_stopping_entropy_threshold": [0, 0.0, 1e-30, 0.01, 3, 1e6],
    "early_stopping_length_threshold": [1, 256, INT32],
    "start": ["auto", "thinking", "answer"],
    "think_start_str": ["<think>", *TEXTS[1:-1]],
    "rethink": [True, False],
    "think_end_str": TEXTS,
    "think_end_first_token": [True, False],
    "cold_stop_str": ["</think>", "So\n", "🤔", "The end.\0"],
    "max_thinking_steps": [0, 1, 256, INT32],
    "stop_in_thinking": [True, False],
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
    "start": (
        "one of 'auto', 'thinking', 'answer'",
        ["", "Auto", "closed", True, 1, ["auto"], {"auto": 1}],
    ),
    "think_start_str": ("a non-empty string of valid Unicode", NOT_TEXTS),
    "rethink": ("true or false", NOT_BOOLEANS),
    "think_end_str": ("a non-empty string of valid Unicode", NOT_TEXTS),
    "think_end_first_token": ("true or false", NOT_BOOLEANS),
    "cold_stop_str": ("a non-empty string of valid Unicode", NOT_TEXTS),
    "max_thinking_steps": (
        "an integer from 0 to 2147483647",
        [*NOT_INTEGERS, -1, INT32 + 1, "all"],
    ),
    "stop_in_thinking": ("true or false", NOT_BOOLEANS),
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
    "return_concepts": ("true or false", NOT_BOOLEANS),
    "return_entropies": ("true or false", NOT_BOOLEANS),
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


def resolved(
    field: Any = True,
    seed: int = 0,
    own: dict[str, Any] | None = None,
    options: ServerOptions = OFF,
    prompt: Sequence[int] = (),
    ids: dict[str, list[int]] | None = None,
) -> SoftThinkingParams:
    """Complete parameters of a request; ``ids``: of texts, token 7 is every other one."""
    return soft(field, options=options).resolve(vocabulary(ids), prompt, seed, own or {})


def test_every_field_is_tested() -> None:
    resolved = {"seed", "seeded", "separate_answer", "closed"}
    resolved |= {"think_end_ids", "cold_stop_ids", "think_start_ids"}
    names = set(SoftThinkingParams.__annotations__) - resolved
    names = {name for name in names if not name.startswith("policy")}
    unresolved = {"enabled", "start", "rethink", "think_start_str", "think_end_str"}
    assert set(VALID) == set(INVALID) == names | unresolved | {"cold_stop_str"}


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
    "key",
    [
        *("maxtopk", "MAX_TOPK", "", "seed", "separate_answer", "temperature"),
        *("think_end_id", "think_end_ids", "cold_stop_ids", "think_start_ids", "closed"),
    ],
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
    """Those of the public implementation, and no others."""
    ours = {"enabled", "return_entropies", "stop_in_thinking", "max_thinking_steps"}
    ours |= {"start", "think_start_str", "rethink", "think_end_first_token", "cold_stop_str"}
    assert set(VALID) - ours == FLAT_NAMES
    assert len(FLAT_NAMES) == 12


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
    assert resolved(seed=-3, ids={"</think>": [9]}) == SoftThinkingParams(
        max_topk=10,
        early_stopping_entropy_threshold=0.01,
        early_stopping_length_threshold=256,
        think_end_ids=(9,),
        cold_stop_ids=(9,),
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
        return_entropies=False,
        think_end_first_token=False,
        think_start_ids=(),
        max_thinking_steps=NO_LIMIT,
        stop_in_thinking=True,
        closed=False,
    )


OWN = {"temperature": 0.6, "top_p": 0.95, "top_k": 30, "min_p": 0.001, "max_new_tokens": 9}


def test_the_answer_is_sampled_with_the_requests_own_parameters() -> None:
    params = resolved(own=OWN)
    for name in ("temperature", "top_p", "top_k", "min_p"):
        assert getattr(params, f"after_thinking_{name}") == OWN[name]
    assert not params.separate_answer


def test_own_parameters_that_are_none_are_absent() -> None:
    assert resolved(own=dict.fromkeys(OWN)) == resolved()


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0), ("top_p", 0.5), ("top_k", 1), ("min_p", 0)]
)
def test_after_thinking_parameters(name: str, value: float) -> None:
    params = resolved({f"after_thinking_{name}": value}, own=OWN)
    assert params.separate_answer
    for other in ("temperature", "top_p", "top_k", "min_p"):
        expected = value if other == name else OWN[other]
        assert getattr(params, f"after_thinking_{other}") == expected


@pytest.mark.parametrize("place", [0, -1])
def test_what_is_given_is_kept(place: int) -> None:
    given = {name: values[place] for name, values in VALID.items() if name != "enabled"}
    end, start = given["think_end_str"], given["think_start_str"]
    params = resolved(given, seed=2, own=OWN, ids={end: [1], start: [4, 5]})
    before = given.pop("cold_stop_str").removesuffix(given.pop("think_end_str"))
    assert params.think_end_ids == (1,)
    assert params.cold_stop_ids == ((7, 1) if before else (1,))
    del given["think_start_str"]
    assert params.think_start_ids == ((4, 5) if given.pop("rethink") else ())
    assert params.closed == (given.pop("start") == "answer")
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
    assert resolved(options=options).max_topk == expected


def test_server_defaults() -> None:
    options = ServerOptions(
        think_end_str="<end>", think_start_str="<begin>", default_noise="gumbel"
    )
    ids = {"<end>": [1, 2], "<begin>": [3, 4], "x": [5], "y": [6]}
    params = resolved({"rethink": True}, options=options, ids=ids)
    assert (params.think_start_ids, params.think_end_ids) == ((3, 4), (1, 2))
    assert params.noise == "gumbel"
    assert resolved({"noise": "none"}, options=options).noise == "none"
    given = {"think_end_str": "x", "think_start_str": "y", "rethink": True}
    params = resolved(given, options=options, ids=ids)
    assert (params.think_start_ids, params.think_end_ids) == ((6,), (5,))


# Markers.

IDS = {"</think>": [1, 2, 3], "Final.": [4, 5], "<think>": [6, 8]}


@pytest.mark.parametrize(
    ("given", "think_end_ids", "cold_stop_ids", "think_start_ids"),
    [
        ({}, (1, 2, 3), (1, 2, 3), ()),
        ({"cold_stop_str": "</think>"}, (1, 2, 3), (1, 2, 3), ()),
        ({"cold_stop_str": "Final.</think>"}, (1, 2, 3), (4, 5, 1, 2, 3), ()),
        ({"think_end_str": "Final."}, (4, 5), (4, 5), ()),
        ({"think_end_str": "E", "cold_stop_str": "Final.E"}, (7,), (4, 5, 7), ()),
        ({"rethink": True}, (1, 2, 3), (1, 2, 3), (6, 8)),
        ({"rethink": False, "think_start_str": "x"}, (1, 2, 3), (1, 2, 3), ()),
        ({"rethink": True, "think_start_str": "x"}, (1, 2, 3), (1, 2, 3), (7,)),
    ],
)
def test_ids_of_the_markers(
    given: dict[str, Any],
    think_end_ids: tuple[int, ...],
    cold_stop_ids: tuple[int, ...],
    think_start_ids: tuple[int, ...],
) -> None:
    params = resolved(given, ids=IDS)
    assert params.think_end_ids == think_end_ids
    assert params.cold_stop_ids == cold_stop_ids
    assert params.think_start_ids == think_start_ids


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cold_stop_str": "Final."}, "cold_stop_str must end with think_end_str, which is '</th"),
        ({"think_end_str": "x", "cold_stop_str": "x "}, "cold_stop_str must end with think_end"),
        ({"think_start_str": "</think>"}, "think_start_str must be another text than think_end"),
        ({"think_end_str": "<think>"}, "think_start_str must be another text than think_end"),
        ({"think_end_str": "long"}, "think_end_str must be 1 to 16 tokens .* 'long' is 17 tokens"),
        ({"cold_stop_str": "longer</think>"}, "cold_stop_str without think_end_str must be 1 to"),
        ({"think_start_str": "long"}, "think_start_str must be 1 to 16 tokens of the vocabulary"),
    ],
)
def test_markers_that_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        resolved(given, ids={**IDS, "long": [9] * 17, "longer": [9] * 62})


def test_a_start_that_the_model_does_not_have_is_needed_by_who_asks_for_it() -> None:
    ids = {**IDS, "<think>": [9] * 17}
    assert resolved(ids=ids).think_start_ids == ()
    for asked in ({"rethink": True}, {"think_start_str": "<think>"}):
        with pytest.raises(ValueError, match=r"^think_start_str must be 1 to 16 tokens"):
            resolved(asked, ids=ids)


@pytest.mark.parametrize(
    ("start", "prompt", "closed"),
    [
        (None, [], False),
        (None, [5, 9], True),
        (None, [5, 8, 9, 5], True),
        (None, [5, 8, 5], False),
        ("auto", [8, 5, 9], True),
        ("auto", [9, 8], False),
        ("thinking", [8, 5, 9], False),
        ("answer", [], True),
        ("answer", [5, 8], True),
    ],
)
def test_where_a_request_begins(start: str | None, prompt: list[int], closed: bool) -> None:
    ids = {"<think>": [8], "</think>": [9]}
    params = resolved({"start": start}, prompt=prompt, ids=ids)
    assert params.closed == closed
    assert resolved({"start": start, "rethink": True}, prompt=prompt, ids=ids).closed == closed


@pytest.mark.parametrize(
    ("given", "ordinary"),
    [
        ({"start": "answer"}, True),
        ({"start": "thinking"}, False),
        ({"start": "answer", "rethink": True}, False),
        ({"start": "answer", "policy": "discrete"}, True),
        ({"start": "answer", "policy": "mixture_of_inputs"}, False),
        ({"start": "thinking", "policy": "mixture_of_inputs"}, False),
    ],
)
def test_which_requests_are_ordinary_ones(given: dict[str, Any], ordinary: bool) -> None:
    """Those that never think."""
    ids = {"<think>": [8], "</think>": [9]}
    assert resolved(given, ids=ids).is_ordinary == ordinary


def test_rules_of_the_thoughts() -> None:
    given = {
        "early_stopping_entropy_threshold": 0.1,
        "early_stopping_length_threshold": 9,
        "cold_stop_str": "Final.</think>",
        "max_thinking_steps": 0,
        "rethink": True,
    }
    params = resolved(given, ids=IDS)
    rules = ThoughtRules(
        entropy_threshold=float(np.float32(0.1)),
        length_threshold=9,
        end_ids=(1, 2, 3),
        forced_ids=(4, 5, 1, 2, 3),
        max_thinking_steps=0,
        start_ids=(6, 8),
    )
    assert params.rules == rules
    first = resolved({**given, "think_end_first_token": True}, ids=IDS)
    assert first.rules == replace(rules, end_ids=(1,))
    assert (first.think_end_ids, first.cold_stop_ids) == ((1, 2, 3), (4, 5, 1, 2, 3))
    assert resolved(ids=IDS).rules.max_thinking_steps == NO_LIMIT


@pytest.mark.parametrize("max_topk", [1, DEFAULT_MAX_TOPK, 1024])
def test_server_options(max_topk: int) -> None:
    assert ServerOptions(max_topk=max_topk).max_topk == max_topk


@pytest.mark.parametrize("max_topk", [0, -1, 1025, True, 2.0, "32", None, NAN])
def test_server_options_refuse_max_topk(max_topk: Any) -> None:
    with pytest.raises(ValueError, match="max_topk must be an integer from 1 to 1024, got "):
        ServerOptions(max_topk=max_topk)


@pytest.mark.parametrize("name", ["think_start_str", "think_end_str"])
@pytest.mark.parametrize("text", ["", None, 3, ["</think>"]])
def test_server_options_refuse_a_marker(name: str, text: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a non-empty string"):
        ServerOptions(**{name: text})


# The way to the scheduler.


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("seed", [0, -(2**63), 2**63 - 1])
def test_wire_round_trip(seed: int, place: int) -> None:
    given = {name: values[place] for name, values in VALID.items() if name != "enabled"}
    params = resolved(given, seed=seed, own=OWN, ids={given["think_end_str"]: [151935, 0]})
    wire = params.to_wire()
    lists = {name: list(wire.pop(name)) for name, v in params.to_wire().items() if type(v) is tuple}
    assert lists.pop("policy_parameters") == []
    assert lists.keys() == {"think_end_ids", "cold_stop_ids", "think_start_ids"}
    assert all(type(i) is int for ids in lists.values() for i in ids)
    assert all(type(value) in (bool, int, float, str) for value in wire.values())
    wire |= {**lists, "policy_parameters": []}
    received = SoftThinkingParams.from_wire(json.loads(json.dumps(wire)))
    assert received == params and received.rules == params.rules


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
        case "max_thinking_steps":
            return integer and 0 <= value < 2**31
        case "think_start_str" | "think_end_str" | "cold_stop_str":
            return isinstance(value, str) and len(value) > 0
        case "noise":
            return value in NOISES
        case "start":
            return value in STARTS
        case "return_concepts" | "return_entropies" | "rethink":
            return type(value) is bool
        case "think_end_first_token" | "stop_in_thinking":
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
    distinct = Vocabulary(Distinct(), size=1 << 20)
    if not fit_together(request.given):
        with pytest.raises(ValueError, match=r"^(think_start_str|cold_stop_str) must "):
            request.resolve(distinct, (), seed=1, own=OWN)
        return
    params = request.resolve(distinct, (), seed=1, own=OWN)
    assert SoftThinkingParams.from_wire(params.to_wire()) == params


def fit_together(given: Mapping[str, Any]) -> bool:
    """Whether the markers of a request do."""
    end, start = given.get("think_end_str", "</think>"), given.get("think_start_str", "<think>")
    cold_stop = given.get("cold_stop_str", end)
    ends_with_it = cold_stop.endswith(end) and end not in cold_stop.removesuffix(end)
    return start != end and ends_with_it


@settings(deadline=None, derandomize=True)
@given(valid_fields)
def test_everything_valid_is_accepted(field: dict[str, Any]) -> None:
    assert read_request(field, {}, OFF) is not None
