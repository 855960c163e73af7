"""Cold Stop in the requests of an arm: its thresholds, and which arms differ in nothing else."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from soft_sglang.options import ServerOptions
from soft_sglang.request_fields import own_fields

ENTROPY, LENGTH = "early_stopping_entropy_threshold", "early_stopping_length_threshold"
"""The fields of ``soft_thinking``."""

_DEFAULTS = {field.name: field.default for field in own_fields(ServerOptions())}


class Thresholds(NamedTuple):
    """Of Cold Stop, where it is on."""

    entropy: float
    """Nats, above 0."""
    length: int
    """Steps."""

    def __str__(self) -> str:
        return f"{self.entropy:g} nats, {self.length} steps"


def thresholds_in(request: Mapping[str, Any]) -> Thresholds | None:
    """Of a request's ``soft_thinking``; None: Cold Stop is off, as it is for most policies."""
    entropy = request.get(ENTROPY, 0)
    return Thresholds(entropy, request.get(LENGTH, _DEFAULTS[LENGTH])) if entropy else None


def rest_of(request: Mapping[str, Any]) -> str:
    """All but the thresholds: requests that differ in them alone have the same."""
    rest = {name: value for name, value in request.items() if name not in (ENTROPY, LENGTH)}
    return json.dumps(rest, sort_keys=True)
