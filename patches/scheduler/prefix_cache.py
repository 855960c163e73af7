"""Prefix cache: key-value pairs computed from concepts never enter it.

They would be found under the ids of the heaviest tokens, by requests that mean those ids. The
prompt of a soft request is shared as usual.
"""

from collections.abc import Callable
from typing import Any

from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.request import trace_of
from soft_sglang.patches.versions import (
    extend_end,
    go_on_after_prefill,
    insert_into_tree,
    insertion_flag,
)


@patch(
    "mem_cache.common.release_kv_cache",
    When.AROUND,
    why="A finished request's whole sequence is inserted.",
    how="Inserts a soft request up to the end of its prompt instead, where that is possible.",
    upstream="A per-request limit of the insertion would replace it.",
)
def release_without_concepts(
    original: Callable[..., None], req: Any, tree_cache: Any, *args: Any, **kwargs: Any
) -> None:
    """Release a request's key-value pairs."""
    flag = insertion_flag()
    wanted = args[0] if args else kwargs.get(flag, True)
    trace = trace_of(req)
    if trace is None or not wanted:
        original(req, tree_cache, *args, **kwargs)
        return
    if req.kv.holds_kv and not req.skip_radix_cache_insert:
        length = req.owned_kv_len()
        if _takes_prompt(tree_cache, whole=length <= trace.prompt_len):
            insert_into_tree(tree_cache, req, up_to=min(length, trace.prompt_len))
    original(req, tree_cache, **{flag: False})


def _takes_prompt(tree_cache: Any, whole: bool) -> bool:
    """Whether a tree can be given the prompt of a request; ``whole``: which did not go on after it.

    Not a part of one whose states cannot be cut: a Mamba state is that of the last token, and a
    sliding window has left the prompt. A subclass of SGLang's tree may store what it is given
    elsewhere. What is not inserted here is there since the prefill, or is computed anew.
    """
    from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

    if type(tree_cache) is not UnifiedRadixCache or tree_cache.supports_mamba():
        return False
    return whole or not tree_cache.supports_swa()


_WHY = "A resumed request's prefill, and each chunk of it, is inserted."
_HOW = "Past the prompt, only notes how far the request is prefilled."
_UPSTREAM = "As for release_kv_cache."


def _insert_prompt_only(
    original: Callable[..., None], req: Any, tree_cache: Any, **kwargs: Any
) -> None:
    """Insert the prefill of a soft request only while it is prompt."""
    trace = trace_of(req)
    if trace is None or extend_end(req) <= trace.prompt_len:
        original(req, tree_cache, **kwargs)
    else:
        go_on_after_prefill(tree_cache, req)


checkpoint_prompt_only = patch(
    "mem_cache.common.checkpoint_kv_cache",
    When.AROUND,
    why=_WHY,
    how=_HOW,
    upstream=_UPSTREAM,
    sglang=">=0.5.22",
)(_insert_prompt_only)

cache_prompt_only = patch(
    "mem_cache.common.maybe_cache_unfinished_req",
    When.AROUND,
    why=_WHY,
    how=_HOW,
    upstream=_UPSTREAM,
    sglang="<0.5.22",
)(_insert_prompt_only)
