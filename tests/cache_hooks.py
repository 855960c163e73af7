"""The plugin's prefix-cache hooks, called as SGLang would call them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.mem_cache import common

from soft_sglang.patches.scheduler import prefix_cache, request
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


@contextmanager
def matching_prompts_only() -> Iterator[None]:
    """While active, requests match as with the plugin."""
    original = Req._compute_max_prefix_len

    def match(req: Req, *args: Any) -> int:
        return request.match_prompt_only(original(req, *args), req)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Req, "_compute_max_prefix_len", match)
        yield
