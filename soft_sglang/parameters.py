"""Parameters of a soft request: names, defaults, validation.

The names are those of the public implementation of arXiv 2505.15778.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from soft_sglang.fields import Field, Kind
from soft_sglang.kernels.table_rows import NO_LIMIT
from soft_sglang.markers import Markers, Vocabulary, is_closed, read_markers
from soft_sglang.options import ServerOptions
from soft_sglang.policies.policy import Policy, RequestFacts
from soft_sglang.policies.registry import SOFT_THINKING, policy_named, registered
from soft_sglang.request_fields import POLICY, own_fields
from soft_sglang.state_machine import ThoughtRules

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


FLAT_NAMES = frozenset(
    {
        "max_topk",
        "early_stopping_entropy_threshold",
        "early_stopping_length_threshold",
        "think_end_str",
        "after_thinking_temperature",
        "after_thinking_top_p",
        "after_thinking_top_k",
        "after_thinking_min_p",
        "noise",
        "gumbel_softmax_temperature",
        "dirichlet_alpha",
        "return_concepts",
    }
)
"""Names that may also stand directly in ``sampling_params``, as in the public implementation."""


@dataclass(frozen=True)
class SoftThinkingParams:
    """Parameters of one soft request, complete and valid.

    Ids and ``seed`` are resolved from the tokenizer and the request; the after-thinking
    parameters are the request's own where it gives none, and ``separate_answer`` says whether it
    gives any.
    """

    max_topk: int
    early_stopping_entropy_threshold: float
    early_stopping_length_threshold: int
    think_end_ids: tuple[int, ...]
    """The tokens of ``think_end_str``."""
    cold_stop_ids: tuple[int, ...]
    """What is emitted where thinking is made to end; the last tokens are those above."""
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
    think_end_first_token: bool = False
    think_start_ids: tuple[int, ...] = ()
    """The tokens of ``think_start_str``, with ``rethink``; without it there are none."""
    max_thinking_steps: int = NO_LIMIT
    stop_in_thinking: bool = True
    closed: bool = False
    """The request begins with its answer."""
    seeded: bool = False
    """The request gives its seed."""
    policy: str = SOFT_THINKING
    policy_parameters: tuple[float, ...] = ()
    """Values of the policy's own parameters, in its order."""
    policy_columns: int = 0
    """Columns of the concept table that the policy needs."""

    @property
    def is_ordinary(self) -> bool:
        """The request begins with its answer and never thinks: an ordinary one."""
        policy = policy_named(self.policy)
        mixes_answer = policy is not None and policy.mixes_answer
        return self.closed and not self.think_start_ids and not mixes_answer

    @cached_property
    def rules(self) -> ThoughtRules:
        """When and how the request's thoughts end."""
        first = 1 if self.think_end_first_token else None
        return ThoughtRules(
            # the device compares in float32
            entropy_threshold=float(np.float32(self.early_stopping_entropy_threshold)),
            length_threshold=self.early_stopping_length_threshold,
            end_ids=self.think_end_ids[:first],
            forced_ids=self.cold_stop_ids,
            max_thinking_steps=self.max_thinking_steps,
            start_ids=self.think_start_ids,
        )

    def to_wire(self) -> dict[str, Any]:
        """A flat dict of scalars and lists of them, as it travels to the scheduler."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SoftThinkingParams":
        """Inverse of :meth:`to_wire`."""
        listed = {k: tuple(v) for k, v in wire.items() if isinstance(v, list | tuple)}
        return cls(**{**wire, **listed})


@dataclass(frozen=True)
class SoftRequest:
    """What a request asks for, checked, before the tokenizer is consulted."""

    given: Mapping[str, Any]
    """The parameters that the request gives."""
    options: ServerOptions

    @property
    def policy(self) -> Policy | None:
        """The policy; None is soft thinking itself."""
        return policy_named(self._value("policy"))

    def resolve(
        self,
        vocabulary: Vocabulary,
        prompt: Sequence[int],
        seed: int,
        own: Mapping[str, Any],
    ) -> SoftThinkingParams:
        """Fill in the defaults, and look up what is written in tokens.

        Args:
            vocabulary: of the model.
            prompt: token ids; they tell whether the request begins with its answer.
            seed: of the request.
            own: the request's sampling parameters.

        Raises:
            ValueError: the policy needs more columns than the server has, or a string is not so
                many tokens as it may be.
        """
        markers = self._markers(vocabulary)
        start = self._value("start")
        closed = is_closed(prompt, markers, vocabulary) if start == "auto" else start == "answer"
        policy, max_topk = self.policy, self._value("max_topk")
        policy_parameters: tuple[float, ...] = ()
        columns = 0
        if policy is not None:
            facts = RequestFacts(
                own.get("max_new_tokens", _DEFAULT_LENGTH),
                len(markers.think_end),
                vocabulary.token,
            )
            values = {field.name: self._value(field.name) for field in policy.fields}
            policy_parameters = policy.resolve(values, facts)
            columns = policy.columns(max_topk, values)
            if columns > self.options.max_topk:
                raise ValueError(
                    f"policy {policy.name!r} would mix {columns} tokens with these parameters; "
                    f"the server's --max-topk is {self.options.max_topk}."
                )
        budget = self._value("max_thinking_steps")
        answer: dict[str, Any] = {}
        for name, default in _SAMPLING_DEFAULTS.items():
            value = self.given.get(f"after_thinking_{name}", own.get(name))
            answer[f"after_thinking_{name}"] = default if value is None else value
        return SoftThinkingParams(
            max_topk=max_topk,
            early_stopping_entropy_threshold=float(self._value("early_stopping_entropy_threshold")),
            early_stopping_length_threshold=self._value("early_stopping_length_threshold"),
            think_end_ids=markers.think_end,
            cold_stop_ids=markers.cold_stop,
            think_end_first_token=self._value("think_end_first_token"),
            think_start_ids=markers.think_start if self._value("rethink") else (),
            max_thinking_steps=NO_LIMIT if budget is None else budget,
            stop_in_thinking=self._value("stop_in_thinking"),
            closed=closed,
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

    def _markers(self, vocabulary: Vocabulary) -> Markers:
        needs_start = self._value("rethink") or "think_start_str" in self.given
        return read_markers(
            vocabulary,
            self._value("think_start_str"),
            self._value("think_end_str"),
            self._value("cold_stop_str"),
            needs_start,
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
