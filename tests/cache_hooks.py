"""The plugin's prefix-cache hooks, called as SGLang would call them."""

from typing import Any

from sglang.srt.mem_cache import common

from soft_sglang.patches.scheduler import prefix_cache
from soft_sglang.patches.versions import insertion_flag


def release(cache: Any, req: Any) -> None:
    """Release a finished request that may enter the tree."""
    flag = {insertion_flag(): True}
    prefix_cache.release_without_concepts(common.release_kv_cache, req, cache.tree, **flag)


def after_prefill(cache: Any, req: Any) -> None:
    """What follows a request's prefill, or a chunk of it."""
    if hasattr(common, "checkpoint_kv_cache"):
        prefix_cache.checkpoint_prompt_only(common.checkpoint_kv_cache, req, cache.tree)
    else:
        prefix_cache.cache_prompt_only(common.maybe_cache_unfinished_req, req, cache.tree)
