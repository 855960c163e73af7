"""What every scheduler process announces of the plugin, and what the front end makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Support:
    """What the front end knows of its schedulers; ServerArgs carry it to its workers."""

    unsupported: str | None = None
    """Why soft requests cannot be served, None if they can."""
    policies: frozenset[str] = frozenset()
    """Names of the policies that every scheduler knows."""
    ask_schedulers: bool = False
    """A controller did not hand the start messages on: the first request asks."""


_ATTRIBUTE = "_soft_thinking_support"
"""As for the options: underscore attributes of ServerArgs survive the pickling."""


def support_of(server_args: Any) -> Support:
    """What is known of a server's schedulers."""
    support: Support = getattr(server_args, _ATTRIBUTE, None) or Support()
    return support


def attach_support(server_args: Any, support: Support) -> None:
    """Note what is known of a server's schedulers."""
    setattr(server_args, _ATTRIBUTE, support)


async def learn_support(manager: Any) -> Support:
    """What is known of a tokenizer manager's schedulers; asks them, once, where nothing is."""
    support = support_of(manager.server_args)
    if support.ask_schedulers:
        states = await manager.get_internal_state()
        problems = filter(None, map(problem_of, states))
        reason = support.unsupported or next(problems, None)
        support = Support(reason, common_policies(states))
        attach_support(manager.server_args, support)
    return support
