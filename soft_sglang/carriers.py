"""The carriers of ``soft_thinking``: where in a request's JSON body it may stand."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from soft_sglang.parameters import FLAT_NAMES, REQUEST_KEY

METADATA = "metadata"
SAMPLING = "sampling_params"
CONTAINERS = (
    SAMPLING,
    "chat_template_kwargs",
    METADATA,
    "session_params",
    "options",
    "parameters",
    "instances",
)
"""Objects of a body in which the field may stand too. Gateways that drop the field itself keep one
of them; in ``metadata``, whose values are strings, it is a string of JSON."""

_CLIENT_ARGUMENT = "extra_body"
_NEAR = ("softthinking", "enablesoftthinking")
"""Letters of keys that are taken for a misspelled field."""
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")


def may_have_field(body: bytes) -> bool:
    """Whether a body is worth parsing; never False for one that has the field.

    Bodies may be tens of megabytes of images: nothing here is slower than a copy. JSON may be in
    UTF-16 or UTF-32, and may escape letters.
    """
    if b"soft" in body.lower() or b"\0" in body[:4]:
        return True
    return b"\\u00" in body and _ESCAPED_LETTER.search(body) is not None


def is_asked(field: Any) -> bool:
    """Whether a value of the field, right or wrong, asks for soft thinking."""
    if isinstance(field, Mapping):
        return field.get("enabled") is not False
    return field is not None and field is not False


def take_field(
    body: Mapping[str, Any], *, reads_sampling: bool = False
) -> tuple[dict[str, Any], Any]:
    """Take the field out of a request's body.

    Args:
        body: the JSON object.
        reads_sampling: the route reads ``sampling_params`` itself; they are left alone.

    Returns:
        The body without the field (``metadata`` is left as it is, clients get it back), and the
        value of the field, None where it is not given.

    Raises:
        ValueError: two carriers disagree, or a key looks like the field and is not.
    """
    rest, given = dict(body), {}
    _refuse_near_spellings(body, "the request")
    if REQUEST_KEY in rest:
        given[REQUEST_KEY] = rest.pop(REQUEST_KEY)
    for name in CONTAINERS:
        inside = body.get(name)
        if reads_sampling and name == SAMPLING:
            continue
        if isinstance(inside, Sequence) and not isinstance(inside, str):
            _refuse_in_list(inside, name)
        if not isinstance(inside, Mapping):
            continue
        _refuse_near_spellings(inside, name)
        if REQUEST_KEY not in inside:
            continue
        value = inside[REQUEST_KEY]
        if name == METADATA:
            given[f"{name}.{REQUEST_KEY}"] = _from_json(value)
            continue
        given[f"{name}.{REQUEST_KEY}"] = value
        left = {key: other for key, other in inside.items() if key != REQUEST_KEY}
        if is_asked(value):
            _refuse_stray_parameters(left)
        if left:
            rest[name] = left
        else:
            del rest[name]
    inside = body.get(_CLIENT_ARGUMENT)
    if isinstance(inside, Mapping) and REQUEST_KEY in inside:
        raise ValueError(
            f"{_CLIENT_ARGUMENT} is an argument of the openai client, not a field of a request; "
            f"put {REQUEST_KEY} beside the request's other fields."
        )
    value = agreed(given.items())
    if is_asked(value):
        _refuse_stray_parameters(rest)
    return rest, value


def _refuse_in_list(entries: Sequence[Any], name: str) -> None:
    """The field stands once for a whole request; refuse it in one of several objects."""
    for entry in entries:
        if isinstance(entry, Mapping):
            _refuse_near_spellings(entry, name)
            if REQUEST_KEY in entry:
                raise ValueError(
                    f"{REQUEST_KEY} cannot stand in a list of {name}; put it beside the request's "
                    "other fields, for all of them."
                )


def agreed(given: Iterable[tuple[str, Any]]) -> Any:
    """The one value of the field in several carriers, by name; null counts as not given.

    Raises:
        ValueError: two of them differ.
    """
    first = None
    for name, value in given:
        if value is None:
            continue
        if first is None:
            first = name, value
        # Python takes 1 for True
        elif json.dumps(value, sort_keys=True) != json.dumps(first[1], sort_keys=True):
            raise ValueError(
                f"{REQUEST_KEY} is given twice with different values: in {first[0]} and in "
                f"{name}; give it once."
            )
    return None if first is None else first[1]


def _from_json(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(
            f"{METADATA}.{REQUEST_KEY} must be a string of JSON, such as "
            f'"true" or "{{\\"max_topk\\": 5}}", got {text[:60]!r}.'
        ) from None


def _refuse_near_spellings(names: Iterable[Any], where: str) -> None:
    for name in names:
        if name != REQUEST_KEY and _letters(name) in _NEAR:
            raise ValueError(f"{where} has a field {name!r}; did you mean {REQUEST_KEY!r}?")


def _letters(name: Any) -> str:
    return re.sub(r"[^a-z]", "", str(name).lower())


def _refuse_stray_parameters(body: Mapping[str, Any]) -> None:
    """Parameters of a soft request that stand beside the field would have no effect."""
    stray = sorted(FLAT_NAMES & body.keys())
    if stray:
        raise ValueError(
            f"{stray[0]} is a parameter of {REQUEST_KEY}; put it into that object: "
            f'{{"{REQUEST_KEY}": {{"{stray[0]}": …}}}}.'
        )
