"""Parameters of a soft request: names, defaults, validation.

The names are those of the public implementation of arXiv 2505.15778.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from soft_sglang.fields import Field, Kind
from soft_sglang.options import ServerOptions
from soft_sglang.policies.policy import Policy, RequestFacts
from soft_sglang.policies.registry import SOFT_THINKING, policy_named, registered
from soft_sglang.request_fields import POLICY, own_fields

REQUEST_KEY = "soft_thinking"
"""The field of a request that asks for soft thinking, and of its answer."""

WIRE_KEY = "__soft_thinking__"
"""Key of ``custom_params`` under which complete parameters travel; requests cannot write it."""

_SAMPLING_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""SGLang's."""
_DEFAULT_LENGTH = 128
"""SGLang's ``max_new_tokens`` of a request that does not have the field."""


def request_fields(options: ServerOptions) -> Mapping[str, Field]:
    """Every parameter of a request and what it may be, by name."""
    return _request_fields(options, registered())


@cache
def _request_fields(options: ServerOptions, policies: tuple[Policy, ...]) -> Mapping[str, Field]:
    fields = (
        *own_fields(options),
        Field(
            POLICY,
            Kind.CHOICE,
            choices=(SOFT_THINKING, *(policy.name for policy in policies)),
            default=SOFT_THINKING,
        ),
        *(field for policy in policies for field in policy.fields),
    )
    return {field.name: field for field in fields}


def request_schema(options: ServerOptions) -> dict[str, Any]:
    """JSON Schema of the field ``soft_thinking`` of a request."""
    parameters = {name: field.schema() for name, field in request_fields(options).items()}
    policies: list[dict[str, Any]] = [
        {"if": _given(field.name), "then": _given("policy", {"const": policy.name})}
        for policy in registered()
        for field in policy.fields
    ]
    policies.append(
        {
            "if": _given("noise", {"not": {"const": "none"}}),
            "then": {"properties": {"policy": {"enum": [SOFT_THINKING, None]}}},
        }
    )
    return {
        "anyOf": [
            {"type": ["boolean", "null"]},
            {
                "type": "object",
                "properties": parameters,
                "additionalProperties": False,
                "allOf": policies,
            },
        ]
    }


def _given(name: str, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Schema of an object with a field that is there and not null."""
    value = {"allOf": [{"not": {"type": "null"}}, schema or {}]}
    return {"required": [name], "properties": {name: value}}


FLAT_NAMES = frozenset(_request_fields(ServerOptions(), ())) - {
    "enabled",
    "policy",
    "return_entropies",
}
"""Names that may also stand directly in ``sampling_params``, as in the public implementation."""


@dataclass(frozen=True)
class SoftThinkingParams:
    """Parameters of one soft request, complete and valid.

    ``think_end_id`` and ``seed`` are resolved from the tokenizer and the request; the
    after-thinking parameters are the request's own where it gives none, and
    ``separate_answer`` says whether it gives any.
    """

    max_topk: int
    early_stopping_entropy_threshold: float
    early_stopping_length_threshold: int
    think_end_id: int
    seed: int
    after_thinking_temperature: float
    after_thinking_top_p: float
    after_thinking_top_k: int
    after_thinking_min_p: float
    separate_answer: bool
    noise: str
    gumbel_softmax_temperature: float
    dirichlet_alpha: float
    return_concepts: bool
    return_entropies: bool = False
    seeded: bool = False
    """The request gives its seed."""
    policy: str = SOFT_THINKING
    policy_parameters: tuple[float, ...] = ()
    """Values of the policy's own parameters, in its order."""
    policy_columns: int = 0
    """Columns of the concept table that the policy needs."""

    def to_wire(self) -> dict[str, Any]:
        """A flat dict of scalars, as it travels to the scheduler."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SoftThinkingParams":
        """Inverse of :meth:`to_wire`."""
        return cls(**{**wire, "policy_parameters": tuple(wire["policy_parameters"])})


@dataclass(frozen=True)
class SoftRequest:
    """What a request asks for, checked, before the tokenizer is consulted."""

    given: Mapping[str, Any]
    """The parameters that the request gives."""
    options: ServerOptions

    @property
    def think_end_str(self) -> str:
        """The string that ends thinking."""
        text: str = self._value("think_end_str")
        return text

    @property
    def policy(self) -> Policy | None:
        """The policy; None is soft thinking itself."""
        return policy_named(self._value("policy"))

    def resolve(
        self,
        think_end_id: int,
        seed: int,
        own: Mapping[str, Any],
        token_id: Callable[[str, str], int] | None = None,
    ) -> SoftThinkingParams:
        """Fill in the defaults.

        Args:
            think_end_id: of :attr:`think_end_str`.
            seed: of the request.
            own: the request's sampling parameters.
            token_id: the id of a string that is one token; first the field that gives it, for the
                error. Only some policies' parameters are such strings.

        Raises:
            ValueError: the policy needs more columns than the server has, or a string is no token.
        """
        policy, max_topk = self.policy, self._value("max_topk")
        policy_parameters: tuple[float, ...] = ()
        columns = 0
        if policy is not None:
            facts = RequestFacts(own.get("max_new_tokens", _DEFAULT_LENGTH), token_id)
            values = {field.name: self._value(field.name) for field in policy.fields}
            policy_parameters = policy.resolve(values, facts)
            columns = policy.columns(max_topk, values)
            if columns > self.options.max_topk:
                raise ValueError(
                    f"policy {policy.name!r} would mix {columns} tokens with these parameters; "
                    f"the server's --max-topk is {self.options.max_topk}."
                )
        answer: dict[str, Any] = {}
        for name, default in _SAMPLING_DEFAULTS.items():
            value = self.given.get(f"after_thinking_{name}", own.get(name))
            answer[f"after_thinking_{name}"] = default if value is None else value
        return SoftThinkingParams(
            max_topk=max_topk,
            early_stopping_entropy_threshold=float(self._value("early_stopping_entropy_threshold")),
            early_stopping_length_threshold=self._value("early_stopping_length_threshold"),
            think_end_id=think_end_id,
            seed=seed,
            seeded=own.get("sampling_seed") is not None,
            **answer,
            separate_answer=any(name in self.given for name in answer),
            noise=self._value("noise"),
            gumbel_softmax_temperature=float(self._value("gumbel_softmax_temperature")),
            dirichlet_alpha=float(self._value("dirichlet_alpha")),
            return_concepts=self._value("return_concepts"),
            return_entropies=self._value("return_entropies"),
            policy=self._value("policy"),
            policy_parameters=policy_parameters,
            policy_columns=columns,
        )

    def _value(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        default = request_fields(self.options)[name].default
        if name == "policy" or self.policy is None:
            return default
        return {"noise": "none", **self.policy.defaults}.get(name, default)


def read_request(field: Any, flat: Mapping[str, Any], options: ServerOptions) -> SoftRequest | None:
    """Read what a request says about soft thinking.

    Args:
        field: the value of ``soft_thinking``: None if absent, a boolean, or a dict of parameters.
        flat: parameters that stand directly in ``sampling_params``; they count if the request is
            soft, and are checked in any case.
        options: of the server.

    Returns:
        The request's parameters, or None for a discrete request.

    Raises:
        ValueError: naming the field and what is allowed.
    """
    fields = request_fields(options)
    nested: dict[str, Any] = {}
    if isinstance(field, Mapping):
        nested = {name: value for name, value in field.items() if value is not None}
        unknown = sorted(str(name) for name in field if name not in fields)
        if unknown:
            raise ValueError(
                f"{REQUEST_KEY} has the unknown field {unknown[0]!r}; "
                f"allowed are {', '.join(fields)}."
            )
    elif field is not None and not isinstance(field, bool):
        raise ValueError(
            f"{REQUEST_KEY} must be true, false or an object of parameters, "
            f"got {type(field).__name__}."
        )

    for prefix, group in ((f"{REQUEST_KEY}.", nested), ("", flat)):
        for name, value in group.items():
            try:
                fields[name].check(value)
            except ValueError as error:
                raise ValueError(f"{prefix}{error}") from None
    doubled = sorted(name for name in nested if name in flat and nested[name] != flat[name])
    if doubled:
        raise ValueError(
            f"{doubled[0]} is given twice with different values: in {REQUEST_KEY} and directly in "
            "sampling_params; give it once."
        )

    enabled = options.enable_soft_thinking
    if isinstance(field, bool):
        enabled = field
    elif isinstance(field, Mapping):
        enabled = nested.pop("enabled", True)
    given = {**flat, **nested}
    _check_policy(given)
    return SoftRequest(given, options) if enabled else None


def _check_policy(given: Mapping[str, Any]) -> None:
    """Raise ValueError where a parameter has no meaning under the request's policy."""
    name = given.get("policy", SOFT_THINKING)
    for policy in registered():
        foreign = [field.name for field in policy.fields if field.name in given]
        if foreign and policy.name != name:
            raise ValueError(
                f"{REQUEST_KEY}.{foreign[0]} belongs to the policy {policy.name!r}, but the "
                f"request's policy is {name!r}; remove it, or set {REQUEST_KEY}.policy."
            )
    if name != SOFT_THINKING and given.get("noise", "none") != "none":
        raise ValueError(
            f"noise must be 'none' under the policy {name!r}; only {SOFT_THINKING!r} has noise."
        )
