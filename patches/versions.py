"""Where the supported versions of SGLang differ: one function a seam, named for what it gives.

What an older version needs goes when that version is no longer supported.
"""

from functools import cache
from typing import Any

from packaging.version import Version

from soft_sglang.compatibility import installed_sglang


@cache
def _since(version: str) -> bool:
    installed = installed_sglang()
    return installed is not None and Version(installed) >= Version(version)


def extend_end(req: Any) -> int:
    """How many of a request's tokens have key-value pairs after its current prefill."""
    end: int = req.extend_end if _since("0.5.22") else req.extend_range.end
    return end


def insertion_flag() -> str:
    """The argument of ``release_kv_cache`` that says whether the request enters the tree."""
    return "checkpoint" if _since("0.5.22") else "is_insert"


def insert_into_tree(tree_cache: Any, req: Any, up_to: int) -> None:
    """Insert the first tokens of a request that is about to be released."""
    insert = tree_cache.checkpoint if _since("0.5.22") else tree_cache.insert_req
    insert(req, up_to=up_to)


def go_on_after_prefill(tree_cache: Any, req: Any) -> None:
    """Note how far a request is prefilled, where it does not enter the tree."""
    if _since("0.5.22"):
        req.prefix_len = req.extend_end
        return
    row = tree_cache.req_to_token_pool.req_to_token[req.kv.req_pool_idx]
    dtype = req.prefix_indices.dtype
    req.prefix_indices = row[: req.extend_range.end].to(dtype=dtype, copy=True)


def last_hidden_states(logits_output: Any) -> Any:
    """The last layer's; since 0.5.23 ``hidden_states`` may be of several layers."""
    last = logits_output.last_hidden_states if _since("0.5.23") else None
    return logits_output.hidden_states if last is None else last


def widen_top_k(sampling_info: Any, top_k: int | None) -> None:
    """Let the sampler look at that many candidates (None: all); since 0.5.22 it is told a limit."""
    if not _since("0.5.22") or sampling_info.max_top_k is None:
        return
    sampling_info.max_top_k = None if top_k is None else max(sampling_info.max_top_k, top_k)


def attention_is_data_parallel(view: Any) -> bool:
    """Of server arguments; since 0.5.22 the flag is resolved into a width, which may be given."""
    return bool(view.enable_dp_attention or (_since("0.5.22") and view.attn_dp_size > 1))


def later_modes(view: Any) -> dict[str, bool]:
    """Modes of server arguments that 0.5.21 does not have."""
    modes = {}
    if _since("0.5.22"):
        modes["--enable-watermark"] = view.enable_watermark
    if _since("0.5.23"):
        modes["--enable-nvidia-megakernel"] = view.enable_nvidia_megakernel
        modes["--enable-amd-monokernel"] = view.enable_amd_monokernel
    return modes
