"""What every scheduler process announces of the plugin, and what the front end makes of it."""

from collections.abc import Sequence
from typing import Any

HANDSHAKE = "soft_thinking"
"""Key of the plugin's version in the scheduler's start message."""
UNSUPPORTED = "soft_thinking_unsupported"
"""Key of the reason why the model cannot think softly, or None."""
POLICIES = "soft_thinking_policies"
"""Key of the names of the policies that the scheduler's process knows."""
WIDTH = "soft_thinking_max_topk"
"""Key of the server's ``--max-topk``, as the process was told."""


def announcement(unsupported: str | None, policies: Sequence[str], width: int) -> dict[str, Any]:
    """What a scheduler process announces."""
    from soft_sglang import __version__

    return {
        HANDSHAKE: __version__,
        UNSUPPORTED: unsupported,
        POLICIES: list(policies),
        WIDTH: width,
    }


def combined(announcements: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the processes of one model announce together: the first problem that one has."""
    first = next((one for one in announcements if problem_of(one)), announcements[0])
    together = {**first, POLICIES: sorted(common_policies(announcements))}
    widths = {announced.get(WIDTH) for announced in announcements}
    if problem_of(first) is None and len(widths) > 1:
        together[UNSUPPORTED] = "the nodes were started with different values of --max-topk"
    return together


def common_policies(announcements: Sequence[dict[str, Any]]) -> frozenset[str]:
    """The policies that every scheduler knows."""
    names = [frozenset(announced.get(POLICIES, ())) for announced in announcements]
    return frozenset.intersection(*names) if names else frozenset()


def problem_of(announced: dict[str, Any]) -> str | None:
    """Why a scheduler cannot serve soft requests, None if it can."""
    from soft_sglang import __version__

    if announced.get(HANDSHAKE) != __version__:
        loaded = announced.get(HANDSHAKE, "not loaded")
        return f"a scheduler process runs without the plugin ({loaded} instead of {__version__})"
    reason: str | None = announced[UNSUPPORTED]
    return reason


async def learn_support(manager: Any) -> None:
    """Ask the schedulers why they cannot serve soft requests, if that is not known yet."""
    if getattr(manager, "soft_thinking_ask_schedulers", False):
        states = await manager.get_internal_state()
        problems = filter(None, map(problem_of, states))
        manager.soft_thinking_policies = common_policies(states)
        reason = manager.soft_thinking_unsupported or next(problems, None)
        manager.soft_thinking_unsupported = reason
        manager.soft_thinking_ask_schedulers = False
