"""SGLang's prefix cache with a tier on the host (HiCache), with real pools and requests, no model.

The transfers alone are replaced, which need CUDA: a copy is noted, and done at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.mem_cache.allocator import TokenToKVPoolAllocator
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.mem_cache.unified_cache.components import ComponentType
from sglang.srt.runtime_context import get_context
from tree_cache import AttentionCache

_SIZE = 2048


class HostCache(AttentionCache):
    """A prefix cache whose nodes are copied to the host."""

    def __init__(self, policy: str) -> None:
        """``policy``: of ``--hicache-write-policy``."""
        pool = ReqToTokenPool(size=8, max_context_len=1024, device="cpu", enable_memory_saver=False)
        allocator = TokenToKVPoolAllocator(
            size=_SIZE,
            dtype=torch.float32,
            device="cpu",
            kvcache=SimpleNamespace(),
            need_sort=False,
        )
        super().__init__(pool, allocator, (ComponentType.FULL,))
        self.copied: list[int] = []
        """Places of the key-value pairs that were copied to the host."""
        self.looked_up: list[list[int]] = []
        """Token ids that were looked for in the storage behind the host."""
        tree: Any = self.tree
        tree.cache_controller = SimpleNamespace(write_policy=policy, pp_prefetch_command_group=None)
        tree.tree_core.set_hicache_enabled()
        tree.write_through_threshold = 1
        tree.is_write_back = policy == "write_back"
        tree.load_back_threshold = 10
        tree._execute_kv_backup = self._copy
        tree.writing_check = self._acknowledge
        tree.prefetch_from_storage = self._look_up
        tree.hicache_storage_pass_prefix_keys = False

    def place(self, req: Req, begin: int, end: int) -> list[int]:
        """Where a running request has its key-value pairs."""
        row: list[int] = self.pool.req_to_token[req.kv.req_pool_idx][begin:end].tolist()
        return row

    def evict(self) -> None:
        """Empty the tree on the device."""
        self._acknowledge()
        self.tree.evict(EvictParams(num_tokens=_SIZE))
        assert self.allocator.available_size() == _SIZE

    def decode(self, req: Req, output: list[int]) -> None:
        """Compute these tokens too, and finish."""
        self.compute_output(req, output)
        self.finish(req, output)

    def found_on_host(self, req: Req) -> int:
        """How many tokens a request finds, all of them on the host."""
        req.init_next_round_input(self.tree)
        on_device = req.prefix_len if hasattr(req, "prefix_len") else len(req.prefix_indices)
        assert on_device == 0
        return req.host_hit_length

    def look_up(self, req: Req) -> None:
        """What the scheduler does when a request arrives and there is a storage."""
        scheduler: Any = SimpleNamespace(
            enable_hicache_storage=True, enable_lmcache=False, tree_cache=self.tree
        )
        Scheduler._prefetch_kvcache(scheduler, req)

    def _copy(self, _node: int, device: torch.Tensor, *_others: Any) -> torch.Tensor:
        self.copied += device.tolist()
        return torch.arange(len(self.copied) - len(device), len(self.copied))

    def _acknowledge(self, *_args: Any, **_kwargs: Any) -> None:
        for node in list(self.tree.ongoing_write_through):
            self.tree._finish_write_through_ack(node)

    def _look_up(self, _handle: Any, _node: Any, tokens: Any, *_args: Any, **_kwargs: Any) -> None:
        self.looked_up.append(list(tokens))


@contextmanager
def host_cache(policy: str) -> Iterator[HostCache]:
    """A cache, with SGLang configured for it meanwhile."""
    with get_context().override_server_args(device="cpu"):
        yield HostCache(policy)
