"""What a soft request cannot be combined with, or not on this server."""

from typing import Any

from soft_sglang.parameters import REQUEST_KEY, SoftRequest
from soft_sglang.patches.announcement import support_of
from soft_sglang.policies.registry import MODULES_VARIABLE


def refuse_unsupported(
    obj: Any, sampling: dict[str, Any], soft: SoftRequest, server_args: Any
) -> None:
    """Check a soft request as a whole.

    Args:
        obj: SGLang's request.
        sampling: its sampling parameters, without the plugin's.
        soft: what it asks for.
        server_args: of the server.

    Raises:
        ValueError: naming what is not supported, and what would be.
    """
    support = support_of(server_args)
    if support.unsupported is not None:
        raise ValueError(f"{REQUEST_KEY} is not available: {support.unsupported}.")
    _refuse_combinations(obj, sampling)
    _refuse_samples_of_pair(sampling, server_args.disaggregation_mode)
    if soft.given.get("start", "auto") == "auto" and _goes_on_in_session(obj):
        raise ValueError(
            f"{REQUEST_KEY}.start must be 'thinking' or 'answer' in a request that goes on in a "
            "session: what came before is not known where 'auto' is decided."
        )
    if soft.policy is not None and soft.policy.name not in support.policies:
        raise ValueError(
            f"{REQUEST_KEY}.policy {soft.policy.name!r} is not known to the server's schedulers; "
            f"name its module in {MODULES_VARIABLE} before the start."
        )


def _refuse_combinations(obj: Any, sampling: dict[str, Any]) -> None:
    refused = {
        "beam_width above 1": (sampling.get("beam_width") or 1) != 1,
        "input_embeds": obj.input_embeds is not None,
        "positional_embed_overrides": obj.positional_embed_overrides is not None,
        "return_sampling_mask": bool(obj.return_sampling_mask),
    }
    for what, present in refused.items():
        if present:
            raise ValueError(
                f"{REQUEST_KEY} cannot be combined with {what}; remove it, or set "
                f"{REQUEST_KEY} to false."
            )


def _refuse_samples_of_pair(sampling: dict[str, Any], disaggregation_mode: str) -> None:
    """SGLang gives all samples of a request one room for their transfer, and they never end."""
    if disaggregation_mode != "null" and sampling.get("n") not in (None, 1):
        raise ValueError(
            f"n must be 1 on a pair of a prefill and a decode server, got {sampling['n']!r}: "
            "SGLang does not serve several samples of a request there; send as many requests."
        )


def _goes_on_in_session(obj: Any) -> bool:
    """Whether the scheduler puts a request's prompt together with that of an earlier one."""
    return isinstance(obj.session_params, dict) and obj.session_params.get("rid") is not None
