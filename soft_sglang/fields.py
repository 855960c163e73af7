"""One validated field: its name, its type, and what is allowed."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """Type of a field, with the words that an error message uses for it."""

    BOOLEAN = "true or false"
    INTEGER = "an integer"
    NUMBER = "a number"
    TEXT = "a non-empty string of valid Unicode"
    CHOICE = "one of"


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_text(value: Any) -> bool:
    # JSON can spell half of a surrogate pair, and tokenizers do not take it
    return isinstance(value, str) and value != "" and not re.search("[\ud800-\udfff]", value)


_TYPE_CHECKS: dict[Kind, Callable[[Any], bool]] = {
    Kind.BOOLEAN: lambda value: isinstance(value, bool),
    Kind.INTEGER: _is_integer,
    Kind.NUMBER: _is_number,
    Kind.TEXT: _is_text,
    Kind.CHOICE: lambda value: isinstance(value, str),
}


_JSON_TYPES = {
    Kind.BOOLEAN: "boolean",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "number",
    Kind.TEXT: "string",
    Kind.CHOICE: "string",
}


@dataclass(frozen=True)
class Field:
    """Description of one field.

    Attributes:
        low, high: inclusive bounds of a number; None: unbounded.
        above: exclusive lower bound of a number.
        choices: allowed values of a CHOICE.
        also: a value outside the bounds that is allowed too.
        default: value where a request gives none; None: it depends.
    """

    name: str
    kind: Kind
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    also: float | None = None
    default: Any = None

    def check(self, value: Any) -> None:
        """Raise ValueError, naming the field and what is allowed, unless ``value`` is."""
        if not (_TYPE_CHECKS[self.kind](value) and self._in_bounds(value)):
            raise ValueError(f"{self.name} must be {self.allowed()}, got {_shown(value)}.")

    def allowed(self) -> str:
        """What is allowed, in words."""
        if self.kind is Kind.CHOICE:
            return f"{self.kind.value} {', '.join(repr(choice) for choice in self.choices)}"
        words = self.kind.value
        if self.above is not None:
            words += f" above {_number(self.above)}"
        if self.low is not None and self.high is not None:
            words += f" from {_number(self.low)} to {_number(self.high)}"
        elif self.low is not None:
            words += f" of at least {_number(self.low)}"
        elif self.high is not None:
            words += f" and at most {_number(self.high)}"
        if self.also is not None:
            words += f" (or {_number(self.also)})"
        return words

    def schema(self) -> dict[str, Any]:
        """What a request may say, as JSON Schema; null stands for the default."""
        schema: dict[str, Any] = {"type": [_JSON_TYPES[self.kind], "null"]}
        bounds = {"minimum": self.low, "maximum": self.high, "exclusiveMinimum": self.above}
        schema.update({name: bound for name, bound in bounds.items() if bound is not None})
        if self.choices:
            schema["enum"] = [*self.choices, None]
        if self.kind is Kind.TEXT:
            schema["minLength"] = 1
        if self.also is not None:
            schema = {"anyOf": [schema, {"const": self.also}]}
        if self.default is not None:
            schema["default"] = self.default
        return schema

    def _in_bounds(self, value: Any) -> bool:
        if self.kind is Kind.CHOICE:
            return value in self.choices
        if self.kind not in (Kind.INTEGER, Kind.NUMBER) or value == self.also:
            return True
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        )


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
