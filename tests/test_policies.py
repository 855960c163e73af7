"""The policies by name, and what a request may say of them."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from policy_oracle import POLICIES
from sglang.srt.sampling.sampling_params import SamplingParams

from soft_sglang.fields import Field, Kind
from soft_sglang.markers import Vocabulary
from soft_sglang.options import ServerOptions
from soft_sglang.parameters import (
    FLAT_NAMES,
    SoftThinkingParams,
    read_request,
    request_fields,
    request_schema,
)
from soft_sglang.policies.average_embedding import AverageEmbedding
from soft_sglang.policies.discrete import Discrete
from soft_sglang.policies.policy import MAX_PARAMETERS, MAX_STATE, Choice, Policy, PolicyStep, alone
from soft_sglang.policies.registry import (
    MODULES_VARIABLE,
    SOFT_THINKING,
    load_modules,
    policy_named,
    register,
    registered,
)

SERVER = ServerOptions()
NAN, INF = float("nan"), float("inf")
INT32 = 2**31 - 1
NOT_NUMBERS: list[Any] = [True, "1", [1], {}, NAN, INF]
NOT_INTEGERS: list[Any] = [*NOT_NUMBERS, 2.5, 3.0]

FIELDS: dict[str, tuple[str, Any, list[Any], str, list[Any]]] = {
    "moi_beta": (
        "mixture_of_inputs",
        1.0,
        [0, 0.5, 2, 1e6],
        "a number from 0 to 1e+06",
        [*NOT_NUMBERS, -0.1, 1.1e6],
    ),
    "swi_alpha": (
        "swi_reasoning",
        1.0,
        [0, 0.5, 1],
        "a number from 0 to 1",
        [*NOT_NUMBERS, -0.1, 1.1],
    ),
    "swi_beta": (
        "swi_reasoning",
        0.7,
        [0, 0.5, 1],
        "a number from 0 to 1",
        [*NOT_NUMBERS, -0.1, 1.1],
    ),
    "swi_window_size": (
        "swi_reasoning",
        512,
        [1, 512, INT32],
        "an integer from 1 to 2147483647",
        [*NOT_INTEGERS, 0, -1, INT32 + 1],
    ),
    "swi_max_switch_count": (
        "swi_reasoning",
        -1,
        [-1, 1, INT32],
        "an integer from 1 to 2147483647 (or -1)",
        [*NOT_INTEGERS, 0, -2],
    ),
    "swi_think_start_str": (
        "swi_reasoning",
        "<think>",
        ["<think>", "思"],
        "a non-empty string of valid Unicode",
        ["", 3, True, "\ud800"],
    ),
    "selar_topk": (
        "selar",
        3,
        [2, 31],
        "an integer from 2 to 1023",
        [*NOT_INTEGERS, 0, 1, 1024],
    ),
    "selar_entropy_threshold": (
        "selar",
        0.5,
        [0, 0.5, 1],
        "a number from 0 to 1",
        [*NOT_NUMBERS, -0.1, 1.1],
    ),
    "selar_contrastive_weight": (
        "selar",
        1.0,
        [0, 2.5, 1e6],
        "a number from 0 to 1e+06",
        [*NOT_NUMBERS, -0.1],
    ),
}
"""Policy, default, valid values, what is allowed in words, invalid values."""

OWN = {name: field for name, (_, _, _, _, field) in FIELDS.items()}


class Lengths(Vocabulary):
    """Every word is a token: the length of the field's name and the word."""

    def tokens(self, field: str, text: str, limit: int) -> tuple[int, ...]:
        return tuple(len(field + word) for word in text.split())


def resolved(options: ServerOptions = SERVER, own: Any = None, **soft: Any) -> SoftThinkingParams:
    request = read_request(soft, {}, options)
    assert request is not None
    return request.resolve(Lengths(None, 1000), (), 0, own or {})


def refusal(**soft: Any) -> str:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the callers look at its text
        resolved(**soft)
    return str(error.value)


# The policies of the package.


def test_every_policy_is_registered_and_has_an_oracle() -> None:
    known = {policy.name: policy for policy in registered()}
    assert known.keys() >= POLICIES.keys()
    for name in POLICIES:
        assert policy_named(name) is known[name]
        module = sys.modules[type(known[name]).__module__]
        assert module.__name__ == f"soft_sglang.policies.{name}"
    assert policy_named(SOFT_THINKING) is None


def test_soft_thinking_is_the_default() -> None:
    params = resolved()
    assert (params.policy, params.policy_parameters, params.policy_columns) == (
        SOFT_THINKING,
        (),
        0,
    )
    assert resolved(policy=SOFT_THINKING) == params


@pytest.mark.parametrize("policy", POLICIES)
def test_cold_stop_is_off_by_default_but_for_chain_of_thought(policy: str) -> None:
    params = resolved(policy=policy)
    assert params.early_stopping_entropy_threshold == (0.01 if policy == "discrete" else 0)
    assert params.early_stopping_length_threshold == 256
    given = resolved(policy=policy, early_stopping_entropy_threshold=0.25)
    assert given.early_stopping_entropy_threshold == 0.25


def test_the_parameters_of_a_policy() -> None:
    """Defaults, and where each of them ends."""
    assert resolved(policy="mixture_of_inputs").policy_parameters == (1.0,)
    assert resolved(policy="mixture_of_inputs", moi_beta=2).policy_parameters == (2.0,)
    assert resolved(policy="selar").policy_parameters == (3.0, 0.5, 1.0)
    selar = resolved(
        policy="selar",
        selar_topk=5,
        selar_entropy_threshold=0.25,
        selar_contrastive_weight=4,
    )
    assert selar.policy_parameters == (5.0, 0.25, 4.0)
    for policy in ("discrete", "average_embedding", "coconut_tf"):
        assert resolved(policy=policy).policy_parameters == ()


def test_the_parameters_of_swi_reasoning() -> None:
    """The blends grow over the request's new tokens; a token is only looked up where it is fed."""

    def length(own):
        return resolved(own=own, policy="swi_reasoning").policy_parameters[-1]

    assert resolved(policy="swi_reasoning").policy_parameters[:-1] == (1.0, 0.7, 512, -1, 0)
    assert length({}) == SamplingParams().max_new_tokens
    assert length({"max_new_tokens": None}) == 32768  # no limit
    own = {"max_new_tokens": 100}
    soft = {"policy": "swi_reasoning", "swi_beta": 0.5, "swi_window_size": 4}
    assert resolved(own=own, **soft).policy_parameters == (1.0, 0.5, 4, -1, 0, 100)
    start = len("swi_think_start_str" + "<begin>")
    soft |= {"swi_alpha": 0.25, "swi_max_switch_count": 3, "swi_think_start_str": "<begin>"}
    assert resolved(own=own, **soft).policy_parameters == (0.25, 0.5, 4, 3, start, 100)


@pytest.mark.parametrize("policy", POLICIES)
def test_who_can_end_with_several_tokens(policy: str) -> None:
    """Not SwiReasoning: it mixes the embedding of its think-end in."""
    several: dict[str, Any] = {"policy": policy, "think_end_str": "a b", "start": "thinking"}
    if policy == "swi_reasoning":
        for more in ({}, {"think_end_first_token": True}):
            message = refusal(**several, **more)
            assert message.startswith("think_end_str must be one token under the policy 'swi_rea")
            assert message.endswith("it is 2 tokens.")
    else:
        assert len(resolved(**several).rules.end_ids) == 2
        assert len(resolved(**several, think_end_first_token=True).rules.end_ids) == 1
    forced = resolved(**{**several, "think_end_str": "b"}, cold_stop_str="a b")
    assert len(forced.rules.forced_ids) == 2


@pytest.mark.parametrize(
    ("soft", "columns"),
    [
        ({"policy": "discrete"}, 1),
        ({"policy": "coconut_tf", "max_topk": 8}, 1),
        ({"policy": "average_embedding", "max_topk": 8}, 8),
        ({"policy": "mixture_of_inputs", "max_topk": 8}, 8),
        ({"policy": "swi_reasoning", "max_topk": 8}, 9),
        ({"policy": "selar", "max_topk": 8}, 4),
        ({"policy": "selar", "selar_topk": 8}, 9),
    ],
)
def test_columns_of_the_concept_table(soft: dict[str, Any], columns: int) -> None:
    assert resolved(**soft).policy_columns == columns
    exact = ServerOptions(max_topk=max(columns, soft.get("max_topk", 1)))
    assert resolved(exact, **soft).policy_columns == columns
    if columns > soft.get("max_topk", 1):
        with pytest.raises(ValueError, match=rf"mix {columns} tokens .* is {columns - 1}\.$"):
            resolved(ServerOptions(max_topk=columns - 1), **soft)


# What a request may say.


def test_every_field_is_tested() -> None:
    names = {field.name for name in POLICIES for field in policy_named(name).fields}  # type: ignore[union-attr]
    assert names == FIELDS.keys()
    assert names | {"policy"} <= request_fields(SERVER).keys()


@pytest.mark.parametrize("name", FIELDS)
def test_values(name: str) -> None:
    policy, default, valid, allowed, invalid = FIELDS[name]
    (field,) = [f for f in policy_named(policy).fields if f.name == name]  # type: ignore[union-attr]
    assert field.default == default
    assert resolved(policy=policy, **{name: default}) == resolved(policy=policy)
    for value in valid:
        resolved(policy=policy, **{name: value})
    for value in invalid:
        message = refusal(policy=policy, **{name: value})
        assert message.startswith(f"soft_thinking.{name} must be {allowed}, got ")
    assert resolved(policy=policy, **{name: None}) == resolved(policy=policy)


@pytest.mark.parametrize("policy", ["", "Selar", "soft", "cot", 1, True, ["selar"], {"selar": 1}])
def test_an_unknown_policy(policy: Any) -> None:
    message = refusal(policy=policy)
    assert message.startswith("soft_thinking.policy must be one of 'soft_thinking', 'discrete', ")
    assert all(repr(name) in message for name in POLICIES)


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("other", [SOFT_THINKING, *POLICIES, None])
def test_a_parameter_of_another_policy(name: str, other: str | None) -> None:
    owner, default, *_ = FIELDS[name]
    if other == owner:
        return
    soft = {} if other is None else {"policy": other}
    message = refusal(**soft, **{name: default})
    assert f"soft_thinking.{name} belongs to the policy {owner!r}" in message
    assert repr(other or SOFT_THINKING) in message


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("noise", ["gumbel", "dirichlet"])
def test_noise_belongs_to_soft_thinking(policy: str, noise: str) -> None:
    message = refusal(policy=policy, noise=noise)
    assert message.startswith(f"noise must be 'none' under the policy {policy!r}")
    assert resolved(policy=policy, noise="none").noise == "none"
    with pytest.raises(ValueError, match="noise must be 'none'"):
        read_request({"policy": policy}, {"noise": noise}, SERVER)


@pytest.mark.parametrize("policy", POLICIES)
def test_noise_by_default_is_for_soft_thinking(policy: str) -> None:
    """A server whose default is noise serves the other policies without."""
    noisy = ServerOptions(default_noise="gumbel")
    assert resolved(noisy).noise == "gumbel"
    resolved(noisy, policy=policy)


def test_policies_are_not_beside_temperature() -> None:
    assert not FLAT_NAMES & (FIELDS.keys() | {"policy"})


@pytest.mark.parametrize("policy", POLICIES)
def test_wire_round_trip(policy: str) -> None:
    own = {name: valid[1] for name, (owner, _, valid, *_) in FIELDS.items() if owner == policy}
    if policy == "selar":
        own["selar_topk"] = 7
    params = resolved(policy=policy, return_entropies=True, **own)
    assert params.return_entropies
    wire = json.loads(json.dumps(params.to_wire()))
    assert SoftThinkingParams.from_wire(wire) == params
    assert SoftThinkingParams.from_wire(replace(params, seed=-(2**63)).to_wire()).seed == -(2**63)


def test_schema() -> None:
    properties = request_schema(SERVER)["anyOf"][1]["properties"]
    assert {*POLICIES, SOFT_THINKING, None} <= set(properties["policy"]["enum"])
    assert properties["policy"]["default"] == SOFT_THINKING
    for name, (_, default, *_) in FIELDS.items():
        assert properties[name]["default"] == default


# Others.


class Mine(Policy):
    """Feeds the heaviest token."""

    name = "mine"
    fields = (Field("my_weight", Kind.NUMBER, low=0, default=1.0),)

    def choose(self, step: PolicyStep) -> Choice:
        return Choice(step.ids[:, 0], *alone(step.ids[:, 0]))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets what a test registers."""
    from soft_sglang.policies import registry

    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


@pytest.mark.usefixtures("registry")
def test_register() -> None:
    assert "my_weight" not in request_fields(SERVER)
    assert "unknown field 'my_weight'" in refusal(my_weight=2)
    register(Mine())
    params = resolved(policy="mine", my_weight=2)
    assert (params.policy, params.policy_columns) == ("mine", 10)
    assert "mine" in refusal(my_weight=2)
    before = registered()
    register(Mine())  # a module that is imported twice
    assert registered() == before


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "discrete"}, "the policy name 'discrete' is taken"),
        ({"name": SOFT_THINKING}, "the policy name 'soft_thinking' is taken"),
        ({"fields": (Field("moi_beta", Kind.NUMBER),)}, "parameter 'moi_beta' is taken"),
        ({"fields": (Field("max_topk", Kind.INTEGER),)}, "parameter 'max_topk' is taken"),
        ({"parameters": tuple(map(str, range(MAX_PARAMETERS + 1)))}, "at most 8 parameters"),
        ({"state": tuple(map(str, range(MAX_STATE + 1)))}, "6 numbers of state"),
    ],
)
def test_who_cannot_register(changes: dict[str, Any], message: str) -> None:
    other = type("Other", (Mine,), {"name": "other", **changes})
    before = registered()
    with pytest.raises(ValueError, match=message):
        register(other())
    assert registered() == before


@pytest.mark.usefixtures("registry")
def test_as_much_as_there_is_room_for() -> None:
    names = {
        "parameters": tuple(map(str, range(MAX_PARAMETERS))),
        "state": tuple(map(str, range(MAX_STATE))),
    }
    register(type("Full", (Mine,), {"name": "full", **names})())


@pytest.mark.parametrize("names", ["json, policy_oracle", " json ,, ", "", "json"])
def test_modules_are_imported(monkeypatch: pytest.MonkeyPatch, names: str) -> None:
    monkeypatch.setenv(MODULES_VARIABLE, names)
    load_modules()


def test_a_module_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODULES_VARIABLE, "json,no_such_policies")
    with pytest.raises(ModuleNotFoundError, match="no_such_policies"):
        load_modules()


def test_without_the_variable() -> None:
    """A process knows the package's own policies and no others."""
    program = (
        "from soft_sglang.policies.registry import load_modules, registered\n"
        "load_modules(); print(*(policy.name for policy in registered()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={}
    )
    assert set(done.stdout.split()) == set(POLICIES)


def test_a_policy_is_stateless() -> None:
    """One object serves every request."""
    for policy in registered():
        assert not vars(policy)
    assert Discrete().columns(8, {}) == 1 and AverageEmbedding().columns(8, {}) == 8
