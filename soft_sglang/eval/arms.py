"""The arms of a comparison: one way of thinking each, everything else equal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from soft_sglang.eval.errors import EvaluationError


@dataclass(frozen=True)
class SoftDefaults:
    """What the soft arms of one run share."""

    max_topk: int
    early_stopping_entropy_threshold: float
    early_stopping_length_threshold: int
    think_end_str: str | None = None
    """None: the server's."""


@dataclass(frozen=True)
class Arm:
    """One way of thinking."""

    name: str
    title: str
    """For tables."""
    source: str
    """The paper."""
    greedy: bool = False
    """Temperature 0."""
    policy: str | None = None
    """Of ``soft_thinking``; None: an ordinary request."""
    cold_stop: bool = False
    """Whether the run's Cold Stop applies."""
    own: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``soft_thinking`` that only this arm has."""
    only_by_name: bool = False
    """Not one of ``all``."""

    def soft_thinking(self, defaults: SoftDefaults) -> bool | dict[str, Any]:
        """The request field of the same name."""
        if self.policy is None:
            return False
        request: dict[str, Any] = {
            "policy": self.policy,
            "max_topk": defaults.max_topk,
            "return_entropies": True,
        }
        if defaults.think_end_str is not None:
            request["think_end_str"] = defaults.think_end_str
        if self.cold_stop:
            request.update(
                early_stopping_entropy_threshold=defaults.early_stopping_entropy_threshold,
                early_stopping_length_threshold=defaults.early_stopping_length_threshold,
            )
        return {**request, **self.own}


_SOFT_THINKING = "arXiv 2505.15778"

ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(
            "cot",
            "CoT (sampling)",
            "arXiv 2201.11903",
            policy="discrete",
            own={"early_stopping_entropy_threshold": 0},
        ),
        Arm("cot_stock", "CoT (stock sampling)", "arXiv 2201.11903", only_by_name=True),
        Arm("cot_greedy", "CoT (greedy)", "arXiv 2201.11903", greedy=True),
        Arm("cold_stop_only", "Cold Stop only", _SOFT_THINKING, policy="discrete", cold_stop=True),
        Arm("soft", "Soft Thinking", _SOFT_THINKING, policy="soft_thinking", cold_stop=True),
        Arm(
            "soft_no_cold_stop",
            "Soft Thinking, no Cold Stop",
            _SOFT_THINKING,
            policy="soft_thinking",
            own={"early_stopping_entropy_threshold": 0},
        ),
        Arm(
            "gumbel",
            "Soft Thinking + Gumbel noise",
            "arXiv 2508.03440",
            policy="soft_thinking",
            cold_stop=True,
            own={"noise": "gumbel"},
        ),
        Arm(
            "dirichlet",
            "Soft Thinking + Dirichlet noise",
            _SOFT_THINKING,
            policy="soft_thinking",
            cold_stop=True,
            own={"noise": "dirichlet"},
        ),
        Arm("average_embedding", "Average embedding", _SOFT_THINKING, policy="average_embedding"),
        Arm("coconut_tf", "COCONUT-TF", f"{_SOFT_THINKING}, 2412.06769", policy="coconut_tf"),
        Arm(
            "mixture_of_inputs",
            "Mixture of Inputs",
            "arXiv 2505.14827",
            policy="mixture_of_inputs",
        ),
        Arm("swi_reasoning", "SwiReasoning", "arXiv 2510.05069", policy="swi_reasoning"),
        Arm("selar", "SeLaR", "arXiv 2604.08299", policy="selar"),
    )
}
"""Every arm, by name, in the order of tables."""


def title_of(name: str) -> str:
    """Name of an arm for readers; an added one's is its own."""
    return ARMS[name].title if name in ARMS else name


def added_arm(name: str, own: Mapping[str, Any]) -> Arm:
    """An arm of the user's: fields of ``soft_thinking``, as they are.

    Cold Stop is on only if the fields say so, but for soft thinking and Cold Stop only, where the
    run's thresholds apply unless the fields have others.

    Raises:
        EvaluationError: the name is taken, or a field is one that all arms share.
    """
    if name in ARMS:
        raise EvaluationError(f"the arm {name!r} exists already")
    for field_name in ("enabled", "return_entropies", "think_end_str"):
        if field_name in own:
            raise EvaluationError(f"the arm {name!r}: {field_name} is the same in every arm")
    policy = str(own.get("policy", "soft_thinking"))
    cold_stop = policy in ("soft_thinking", "discrete")
    return Arm(name, name, "added", policy=policy, cold_stop=cold_stop, own=dict(own))


def comma_separated(text: str) -> list[str]:
    """The parts of an option that is a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def arms_named(names: str) -> list[Arm]:
    """The arms of a comma-separated list, or of ``all``.

    Raises:
        EvaluationError: naming the unknown arm and the known ones.
    """
    if names == "all":
        return [arm for arm in ARMS.values() if not arm.only_by_name]
    chosen = comma_separated(names)
    unknown = [name for name in chosen if name not in ARMS]
    if unknown:
        raise EvaluationError(
            f"there is no arm {unknown[0]!r}; the arms are {', '.join(ARMS)}, or all"
        )
    if not chosen:
        raise EvaluationError(f"no arm is given; the arms are {', '.join(ARMS)}, or all")
    return [ARMS[name] for name in dict.fromkeys(chosen)]
