"""The arms of a sweep over the thresholds of Cold Stop."""

import argparse
from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeVar

from soft_sglang.eval.arms import ARMS, Arm, added_arm, comma_separated
from soft_sglang.eval.cold_stop import ENTROPY, LENGTH
from soft_sglang.eval.errors import EvaluationError

DEFAULT_ARMS = "soft"

_ENTROPIES, _LENGTHS = "--sweep-entropy-thresholds", "--sweep-length-thresholds"
_MOST_NATS, _MOST_STEPS = 1e6, 2**31 - 1
"""What a request may have at most."""

_Number = TypeVar("_Number", int, float)


def swept_arms(options: argparse.Namespace, added: Sequence[Arm]) -> list[Arm]:
    """One arm per swept arm and pair of thresholds, named as ``soft_h0.05_l16``.

    A threshold that is not swept is the run's.

    Args:
        options: of ``run``.
        added: the user's own arms, which may be swept as well.

    Raises:
        EvaluationError: naming the option and what is allowed.
    """
    entropies, lengths = options.sweep_entropy_thresholds, options.sweep_length_thresholds
    if entropies is None and lengths is None:
        if options.sweep_arms is not None:
            raise EvaluationError(f"--sweep-arms needs {_ENTROPIES} or {_LENGTHS}")
        return []
    nats = (
        [options.early_stopping_entropy_threshold]
        if entropies is None
        else _numbers(_ENTROPIES, entropies, float, _MOST_NATS, "numbers above 0, at most 1e6")
    )
    steps = (
        [options.early_stopping_length_threshold]
        if lengths is None
        else _numbers(_LENGTHS, lengths, int, _MOST_STEPS, "whole numbers of at least 1")
    )
    if not all(nats):
        raise EvaluationError(
            f"{_LENGTHS} needs an entropy threshold above 0: of "
            f"--early-stopping-entropy-threshold or {_ENTROPIES}"
        )
    bases = _bases(DEFAULT_ARMS if options.sweep_arms is None else options.sweep_arms, added)
    return [_swept(*combination) for combination in product(bases, nats, steps)]


def _swept(base: Arm, entropy: float, length: int) -> Arm:
    fields = {"policy": base.policy, **base.own, ENTROPY: entropy, LENGTH: length}
    return added_arm(f"{base.name}_h{entropy:.15g}_l{length}", fields)


def _bases(names: str, added: Sequence[Arm]) -> list[Arm]:
    allowed = {arm.name: arm for arm in (*ARMS.values(), *added) if arm.policy is not None}
    chosen = _parts(names)
    unknown = [name for name in chosen if name not in allowed]
    if unknown or not chosen:
        raise EvaluationError(
            f"--sweep-arms must be some of {', '.join(allowed)}, separated by commas, got {names!r}"
        )
    return [allowed[name] for name in chosen]


def _numbers(
    flag: str, text: str, kind: Callable[[str], _Number], most: float, allowed: str
) -> list[_Number]:
    try:
        numbers = [kind(part) for part in _parts(text)]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number <= most for number in numbers):
        raise EvaluationError(f"{flag} must be {allowed}, separated by commas, got {text!r}")
    return list(dict.fromkeys(numbers))


def _parts(text: str) -> list[str]:
    """Of a comma-separated list, each once."""
    return list(dict.fromkeys(comma_separated(text)))
