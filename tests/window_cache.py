"""SGLang's prefix cache of a model with sliding windows, with real pools and requests, no model."""

import inspect
from contextlib import contextmanager

import torch
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.mem_cache import common
from sglang.srt.mem_cache.allocator.swa import SWATokenToKVPoolAllocator
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.mem_cache.swa_memory_pool import SWAKVPool
from sglang.srt.mem_cache.unified_cache.components import ComponentType
from sglang.srt.runtime_context import get_context
from tree_cache import AttentionCache

WINDOW = 16
_SIZE = 2048


class WindowCache(AttentionCache):
    """A prefix cache with full attention and sliding windows."""

    def __init__(self) -> None:
        common_arguments = {
            "size": _SIZE,
            "size_swa": _SIZE,
            "page_size": 1,
            "dtype": torch.float32,
            "device": "cpu",
        }
        pool = ReqToTokenPool(size=8, max_context_len=1024, device="cpu", enable_memory_saver=False)
        pairs = SWAKVPool(
            head_num=1,
            head_dim=8,
            swa_attention_layer_ids=[0],
            full_attention_layer_ids=[1],
            **common_arguments,
        )
        allocator = SWATokenToKVPoolAllocator(kvcache=pairs, need_sort=False, **common_arguments)
        super().__init__(
            pool,
            allocator,
            (ComponentType.FULL, ComponentType.SWA),
            sliding_window_size=WINDOW,
        )

    @property
    def free(self) -> tuple[int, int, int]:
        """Tokens, tokens in windows, rows."""
        allocator = self.allocator
        return (
            allocator.full_available_size(),
            allocator.swa_available_size(),
            self.pool.available_size(),
        )

    def evict(self) -> None:
        """Empty the tree."""
        self.tree.evict(EvictParams(num_tokens=_SIZE, swa_num_tokens=_SIZE))

    def evict_windows(self, req: Req) -> bool:
        """Unlock the window of a running request, and drop all that can be dropped.

        Returns:
            Whether it was unlocked; 0.5.21 keeps it.
        """
        unlock = getattr(self.tree, "release_swa_prefix_lock", None)
        if unlock is not None:
            unlock(req)
        self.tree.evict(EvictParams(num_tokens=0, swa_num_tokens=_SIZE))
        return unlock is not None

    def decode(self, req: Req, output: list[int]) -> None:
        """Compute these tokens too, let the window move on, and finish."""
        self.compute_output(req, output)
        arguments = {
            "sliding_window_size": WINDOW,
            "page_size": 1,
            "req_to_token_pool": self.pool,
            "token_to_kv_pool_allocator": self.allocator,
        }
        leave = common.free_swa_out_of_window_slots
        if "retain_floor" in inspect.signature(leave).parameters:
            arguments["retain_floor"] = self.tree.swa_retain_floor(req)
        leave(req, req.kv.kv_committed_len - 1, **arguments)
        self.finish(req, output)

    def match(self, ids: list[int]) -> int:
        """How many tokens another discrete request with these ids finds."""
        return self.matched(self.request(ids, soft=False), ids)


@contextmanager
def window_cache():
    """A cache, with SGLang configured for it meanwhile."""
    with get_context().override_server_args(device="cpu"):
        yield WindowCache()
