"""Grammars of the tests, and regular expressions that match the same texts."""

import json

_PROPERTIES = {
    "a": {"type": "integer", "minimum": 10, "maximum": 99},
    "b": {"enum": ["x", "yy"]},
}
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": _PROPERTIES,
        "required": list(_PROPERTIES),
        "additionalProperties": False,
    }
)
_TAG = json.dumps(
    {
        "type": "structural_tag",
        "format": {
            "type": "tag",
            "begin": "<call>",
            "content": {"type": "regex", "pattern": "[a-e]{5}w1[0-9]{2}"},
            "end": "</call>",
        },
    }
)
GRAMMARS = {
    "json_schema": (SCHEMA, r'\{"a": ?[1-9]\d, ?"b": ?"(x|yy)"\}'),
    "regex": ("(w1[0-9]{2}){3}", r"(w1\d\d){3}"),
    "ebnf": ('root ::= "ab" ("c" | "d") "e"{2,4} "!"', "ab[cd]e{2,4}!"),
    "structural_tag": (_TAG, r"<call>[a-e]{5}w1\d\d</call>"),
}
"""By the field of a request."""

THROUGH_THINKING = {
    "allows the end": ("[a-e]{14,30}</think>(w2[0-9]{2}){3}", "cold_stop"),
    "never allows the end": ("[a-e]{20}", "length"),
}
"""Regular expressions for a whole output, and how thinking ends where it would stop after ten."""

LONG = {"max_new_tokens": 80, "ignore_eos": False}
"""Room for the texts, and an end."""
