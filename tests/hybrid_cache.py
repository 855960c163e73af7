"""SGLang's prefix cache of a hybrid model, with real pools and requests, and no model.

A state is marked with the number of tokens it was computed from.
"""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import NamedTuple

import torch
from sglang.srt.configs.mamba_utils import Mamba2CacheParams, Mamba2StateShape
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.mem_cache.allocator import TokenToKVPoolAllocator
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.memory_pool import HybridReqToTokenPool
from sglang.srt.mem_cache.unified_cache.components import ComponentType
from sglang.srt.runtime_context import get_context
from tree_cache import TreeCache

GRID = 64
"""With an extra buffer, only states of multiples of it are kept."""


class Match(NamedTuple):
    """What a new request finds."""

    tokens: int
    state: int | None
    """How many tokens the state it is to copy was computed from."""


class Free(NamedTuple):
    """What the pools have left."""

    tokens: int
    states: int
    rows: int


class HybridCache(TreeCache):
    """A prefix cache with full attention and Mamba states."""

    def __init__(self, extra_buffer: bool) -> None:
        self.extra_buffer = extra_buffer
        shape = Mamba2StateShape.create(
            tp_world_size=1,
            intermediate_size=64,
            n_groups=1,
            num_heads=2,
            head_dim=32,
            state_size=16,
            conv_kernel=4,
        )
        pool = HybridReqToTokenPool(
            size=4,
            mamba_size=12,
            mamba_spec_state_size=4,
            max_context_len=1024,
            device="cpu",
            enable_memory_saver=False,
            cache_params=Mamba2CacheParams(shape=shape, layers=[0]),
            mamba_layer_ids=[0],
            enable_mamba_extra_buffer=extra_buffer,
        )
        allocator = TokenToKVPoolAllocator(
            size=2048, dtype=torch.float32, device="cpu", kvcache=SimpleNamespace(), need_sort=False
        )
        super().__init__(
            pool,
            allocator,
            (ComponentType.FULL, ComponentType.MAMBA),
            enable_mamba_extra_buffer=extra_buffer,
        )

    @property
    def free(self) -> Free:
        return Free(
            self.allocator.available_size(),
            self.pool.mamba_allocator.available_size(),
            self.pool.available_size(),
        )

    def evict(self) -> None:
        """Empty the tree."""
        self.tree.evict(EvictParams(num_tokens=2048, mamba_num=12))

    def prefill(self, req: Req) -> None:
        """Compute all that a request has."""
        req.init_next_round_input(self.tree)
        assert self.pool.alloc([req]) is not None
        end = len(req.origin_input_ids) + len(req.output_ids)
        self.note_prefill(req, 0, end)
        self._compute(req, end)

    def decode(self, req: Req, output: list[int]) -> None:
        """Compute these tokens too, and finish."""
        req.output_ids.extend(output)
        self._compute(req, len(req.origin_input_ids) + len(req.output_ids))
        self.finish(req, output)

    def match(self, ids: list[int]) -> Match:
        """What another discrete request with these ids finds."""
        req = self.request(ids, soft=False)
        tokens = self.matched(req, ids, cow_mamba=True)
        source = req.kv.mamba_cow_src_index
        depth = None if source is None else int(self._states[0, int(source)].flatten()[0])
        if req.kv.holds_mamba:
            self.pool.mamba_allocator.free(req.kv.mamba_pool_idx.unsqueeze(0))
        return Match(tokens, depth)

    @property
    def _states(self) -> torch.Tensor:
        return self.pool.mamba_pool.mamba_cache.temporal

    def _compute(self, req: Req, end: int) -> None:
        """Allocate up to ``end``, and mark the states that would be written."""
        kv = req.kv
        begin = kv.kv_allocated_len
        row = self.pool.req_to_token[kv.req_pool_idx]
        row[begin:end] = self.allocator.alloc(end - begin).to(torch.int32)
        kv.kv_allocated_len = kv.kv_committed_len = end
        self._states[:, int(kv.mamba_pool_idx)] = end
        tracked = end // GRID * GRID
        if self.extra_buffer and tracked > begin:
            position = kv.mamba_next_track_idx
            self._states[:, int(kv.mamba_ping_pong_track_buffer[position])] = tracked
            kv.mamba_next_track_idx = 1 - position
            kv.mamba_last_track_idx, kv.mamba_last_track_seqlen = position, tracked


@contextmanager
def hybrid_cache(extra_buffer: bool):
    """A cache, with SGLang configured for it meanwhile."""
    with ExitStack() as stack:
        stack.enter_context(
            get_context().override_server_args(device="cpu", _mamba_cache_chunk_size=GRID)
        )
        yield HybridCache(extra_buffer)
