"""SGLang's prefix cache with real pools and requests, and no model."""

from array import array
from types import SimpleNamespace
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_LENGTH, Req
from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.radix_cache import RadixKey
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache
from sglang.srt.sampling.sampling_params import SamplingParams


class TreeCache:
    """A prefix cache; what its tree holds is a subclass's."""

    def __init__(self, pool: Any, allocator: Any, components: tuple, **parameters: Any) -> None:
        self.pool, self.allocator = pool, allocator
        self.tree = UnifiedRadixCache(
            CacheInitParams(
                disable=False,
                req_to_token_pool=pool,
                token_to_kv_pool_allocator=allocator,
                page_size=1,
                tree_components=components,
                **parameters,
            )
        )

    def request(self, prompt: list[int], soft: bool) -> Req:
        """A request that waits."""
        req = Req("r", "", array("q", prompt), SamplingParams(max_new_tokens=1000))
        req.soft_thinking = SimpleNamespace(prompt_len=len(prompt)) if soft else None
        return req

    def note_prefill(self, req: Req, begin: int, end: int) -> None:
        """Tell a request what its prefill computes; one name a version."""
        if hasattr(req, "set_extend_range"):
            req.set_extend_range(begin, end)
        else:
            req.extend_end = end

    def finish(self, req: Req, output: list[int]) -> None:
        """End a request after these last tokens."""
        req.finished_reason = FINISH_LENGTH(len(output))
        req.finished_len = len(req.output_ids)

    def matched(self, req: Req, ids: list[int], **how: Any) -> int:
        """How many tokens a request finds."""
        key = RadixKey(array("q", ids[:-1]))
        found = self.tree.match_prefix(MatchPrefixParams(key=key, req=req, **how))
        indices = getattr(found, "device_indices", None)  # one name a version
        return found.device_prefix_len if indices is None else len(indices)
