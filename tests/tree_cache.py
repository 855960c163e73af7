"""SGLang's prefix cache with real pools and requests, and no model."""

from array import array
from types import SimpleNamespace
from typing import Any

import torch
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


class AttentionCache(TreeCache):
    """One of a model with nothing but attention: a request's prefix is read from the tree."""

    def prefill(self, req: Req) -> None:
        """Match a request on the device, lock what is found, and compute the rest."""
        req.init_next_round_input(self.tree)
        # one name a version
        if hasattr(self.tree, "lock"):
            req.lock = self.tree.lock(req.last_node)
            found = self.tree.path_device_indices(req.last_node)[: req.prefix_len]
        else:
            req.lock_receipt = self.tree.inc_lock_ref(req.last_node).to_dec_params()
            found = req.prefix_indices
        assert self.pool.alloc([req]) is not None
        end = len(req.origin_input_ids) + len(req.output_ids)
        row = self.pool.req_to_token[req.kv.req_pool_idx]
        row[: len(found)] = found.to(torch.int32)
        self._compute(req, len(found), end)
        self.note_prefill(req, len(found), end)

    def compute_output(self, req: Req, output: list[int]) -> None:
        """Compute these tokens too."""
        begin = len(req.origin_input_ids) + len(req.output_ids)
        req.output_ids.extend(output)
        self._compute(req, begin, begin + len(output))

    def _compute(self, req: Req, begin: int, end: int) -> None:
        row = self.pool.req_to_token[req.kv.req_pool_idx]
        row[begin:end] = self.allocator.alloc(end - begin).to(torch.int32)
        req.kv.kv_allocated_len = req.kv.kv_committed_len = end
