"""A plugin of SGLang for one test: counts reads of tensors on the host during decode steps.

Written to the file named by ``HOST_READS``: one line per decode step, with whether the batch had a
soft request, and the number of reads.
"""

import json
import os
from collections import Counter

import torch

READS = (
    "item",
    "cpu",
    "tolist",
    "numpy",
    "nonzero",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
)


class Reads:
    """Counts calls while switched on."""

    def __init__(self) -> None:
        self.on = False
        self.seen: Counter[str] = Counter()
        for name in READS:
            setattr(torch.Tensor, name, self._counted(name, getattr(torch.Tensor, name)))

    def _counted(self, name, original):
        def counted(tensor, *args, **kwargs):
            if self.on:
                self.seen[name] += 1
            return original(tensor, *args, **kwargs)

        return counted


def load() -> None:
    """Count in every decode step, from the preparation of the batch to the sampled ids."""
    path = os.environ.get("HOST_READS")
    if path is None:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    reads = Reads()

    def count(original, self, batch, *args, **kwargs):
        if not batch.forward_mode.is_decode():
            return original(self, batch, *args, **kwargs)
        soft = sum(getattr(req, "soft_thinking", None) is not None for req in batch.reqs)
        reads.seen.clear()
        reads.on = True
        try:
            result = original(self, batch, *args, **kwargs)
        finally:
            reads.on = False
        with open(path, "a") as file:
            line = {"rows": len(batch.reqs), "soft": soft, "reads": dict(reads.seen)}
            file.write(json.dumps(line) + "\n")
        return result

    target = "sglang.srt.managers.tp_worker.TpModelWorker.forward_batch_generation"
    HookRegistry.register(target, count, HookType.AROUND)
