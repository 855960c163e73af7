"""The policies by name, and how others join them."""

import importlib
import os

from soft_sglang.options import ServerOptions
from soft_sglang.policies.average_embedding import AverageEmbedding
from soft_sglang.policies.coconut_tf import CoconutTF
from soft_sglang.policies.discrete import Discrete
from soft_sglang.policies.mixture_of_inputs import MixtureOfInputs
from soft_sglang.policies.policy import MAX_PARAMETERS, MAX_STATE, Policy
from soft_sglang.policies.selar import SeLaR
from soft_sglang.policies.swi_reasoning import SwiReasoning
from soft_sglang.request_fields import POLICY, own_fields

SOFT_THINKING = "soft_thinking"
"""Soft thinking itself, which the kernels do."""
MODULES_VARIABLE = "SOFT_SGLANG_POLICIES"
"""Environment variable: comma-separated modules that register policies when they are imported."""

_registered: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Discrete(),
        AverageEmbedding(),
        CoconutTF(),
        MixtureOfInputs(),
        SwiReasoning(),
        SeLaR(),
    )
}


def register(policy: Policy) -> None:
    """Make a policy known. Every process of a server must do it: see :data:`MODULES_VARIABLE`.

    Raises:
        ValueError: the name, or the name of a parameter, is taken, or there are too many.
    """
    known = _registered.get(policy.name)
    if known is not None and type(known) is type(policy):
        return
    if known is not None or policy.name == SOFT_THINKING:
        raise ValueError(f"the policy name {policy.name!r} is taken.")
    taken = {POLICY, *(field.name for field in own_fields(ServerOptions()))}
    taken |= {field.name for other in registered() for field in other.fields}
    doubled = sorted(taken & {field.name for field in policy.fields})
    if doubled:
        raise ValueError(f"policy {policy.name!r}: the parameter {doubled[0]!r} is taken.")
    if len(policy.parameters) > MAX_PARAMETERS or len(policy.state) > MAX_STATE:
        raise ValueError(
            f"policy {policy.name!r}: at most {MAX_PARAMETERS} parameters and {MAX_STATE} numbers "
            "of state."
        )
    _registered[policy.name] = policy


def registered() -> tuple[Policy, ...]:
    """Every policy but soft thinking itself."""
    return tuple(_registered.values())


def policy_named(name: str) -> Policy | None:
    """The policy of that name; None for soft thinking itself."""
    return None if name == SOFT_THINKING else _registered[name]


def load_modules() -> None:
    """Import the modules that the environment names; child processes inherit it."""
    for module in os.environ.get(MODULES_VARIABLE, "").split(","):
        if module.strip():
            importlib.import_module(module.strip())
