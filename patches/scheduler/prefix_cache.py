"""Prefix cache: key-value pairs computed from concepts never enter it.

They would be found under the ids of the heaviest tokens, by requests that mean those ids. The
prompt of a soft request is shared as usual.
"""

from collections.abc import Callable
from typing import Any

from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.request import trace_of


@patch(
    "mem_cache.common.release_kv_cache",
    When.AROUND,
    why="A finished request's whole sequence is inserted.",
    how="Other trees than SGLang's own, whose insertion is limited below, insert nothing: a "
    "subclass may store what it is given elsewhere.",
    upstream="A per-request limit of the insertion would replace it.",
    fingerprint="dceef436a0eb5a54",
)
def release_without_concepts(
    original: Callable[..., None], req: Any, tree_cache: Any, is_insert: bool = True
) -> None:
    """Release a request's key-value pairs."""
    from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

    if trace_of(req) is not None and type(tree_cache) is not UnifiedRadixCache:
        is_insert = False
    original(req, tree_cache, is_insert)


@patch(
    "mem_cache.unified_radix_cache.UnifiedRadixCache.insert_req",
    When.AROUND,
    why="As for release_kv_cache.",
    how="Inserts a soft request up to the end of its prompt; the caller frees the rest.",
    upstream="As for release_kv_cache.",
    fingerprint="de82214f33665bc4",
)
def insert_prompt_only(
    original: Callable[..., None], self: Any, req: Any, *, up_to: int, **kwargs: Any
) -> None:
    """Insert a finished request."""
    trace = trace_of(req)
    limit = up_to if trace is None else min(up_to, trace.prompt_len)
    original(self, req, up_to=limit, **kwargs)


@patch(
    "mem_cache.common.maybe_cache_unfinished_req",
    When.AROUND,
    why="A resumed request's prefill, and each chunk of it, is inserted.",
    how="Past the prompt, only refreshes what the scheduler reads of the request.",
    upstream="As for release_kv_cache.",
    fingerprint="7c703be9ce89b418",
)
def cache_prompt_only(
    original: Callable[..., None], req: Any, tree_cache: Any, **kwargs: Any
) -> None:
    """Insert the prefill of a soft request only while it is prompt."""
    trace = trace_of(req)
    if trace is None or req.extend_range.end <= trace.prompt_len:
        original(req, tree_cache, **kwargs)
        return
    row = tree_cache.req_to_token_pool.req_to_token[req.kv.req_pool_idx]
    req.prefix_indices = row[: req.extend_range.end].to(dtype=req.prefix_indices.dtype, copy=True)
