"""Parameters of a soft request: names, defaults, validation.

The names are those of the public implementation of arXiv 2505.15778.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from soft_sglang.fields import Field, Kind
from soft_sglang.options import ServerOptions

NOISES = ("none", "gumbel", "dirichlet")
REQUEST_KEY = "soft_thinking"
"""The field of a request that asks for soft thinking, and of its answer."""

WIRE_KEY = "__soft_thinking__"
"""Key of ``custom_params`` under which complete parameters travel; requests cannot write it."""

_INT32_MAX = 2**31 - 1
_SAMPLING_DEFAULTS = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""SGLang's."""


@cache
def request_fields(options: ServerOptions) -> Mapping[str, Field]:
    """Every parameter of a request and what it may be, by name."""
    fields = (
        Field("enabled", Kind.BOOLEAN, default=True),
        Field("max_topk", Kind.INTEGER, low=1, high=options.max_topk, default=options.concept_size),
        Field("early_stopping_entropy_threshold", Kind.NUMBER, low=0, high=1e6, default=0.01),
        Field("early_stopping_length_threshold", Kind.INTEGER, low=1, high=_INT32_MAX, default=256),
        Field("think_end_str", Kind.TEXT, default=options.think_end_str),
        Field("after_thinking_temperature", Kind.NUMBER, low=0, high=1e6),
        Field("after_thinking_top_p", Kind.NUMBER, above=0, high=1),
        Field("after_thinking_top_k", Kind.INTEGER, low=1, high=_INT32_MAX, also=-1),
        Field("after_thinking_min_p", Kind.NUMBER, low=0, high=1),
        Field("noise", Kind.CHOICE, choices=NOISES, default=options.default_noise),
        Field("gumbel_softmax_temperature", Kind.NUMBER, low=1e-6, high=1e6, default=0.5),
        Field("dirichlet_alpha", Kind.NUMBER, low=1e-6, high=1e6, default=1.0),
        Field("return_concepts", Kind.BOOLEAN, default=False),
    )
    return {field.name: field for field in fields}


def request_schema(options: ServerOptions) -> dict[str, Any]:
    """JSON Schema of the field ``soft_thinking`` of a request."""
    parameters = {name: field.schema() for name, field in request_fields(options).items()}
    return {
        "anyOf": [
            {"type": ["boolean", "null"]},
            {"type": "object", "properties": parameters, "additionalProperties": False},
        ]
    }


FLAT_NAMES = frozenset(request_fields(ServerOptions())) - {"enabled"}
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

    def to_wire(self) -> dict[str, Any]:
        """A flat dict of scalars, as it travels to the scheduler."""
        return asdict(self)

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "SoftThinkingParams":
        """Inverse of :meth:`to_wire`."""
        return cls(**wire)


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

    def resolve(self, think_end_id: int, seed: int, own: Mapping[str, Any]) -> SoftThinkingParams:
        """Fill in the defaults; ``own`` are the request's sampling parameters."""
        answer: dict[str, Any] = {}
        for name, default in _SAMPLING_DEFAULTS.items():
            value = self.given.get(f"after_thinking_{name}", own.get(name))
            answer[f"after_thinking_{name}"] = default if value is None else value
        return SoftThinkingParams(
            max_topk=self._value("max_topk"),
            early_stopping_entropy_threshold=float(self._value("early_stopping_entropy_threshold")),
            early_stopping_length_threshold=self._value("early_stopping_length_threshold"),
            think_end_id=think_end_id,
            seed=seed,
            **answer,
            separate_answer=any(name in self.given for name in answer),
            noise=self._value("noise"),
            gumbel_softmax_temperature=float(self._value("gumbel_softmax_temperature")),
            dirichlet_alpha=float(self._value("dirichlet_alpha")),
            return_concepts=self._value("return_concepts"),
        )

    def _value(self, name: str) -> Any:
        return self.given.get(name, request_fields(self.options)[name].default)


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
    return SoftRequest({**flat, **nested}, options) if enabled else None
