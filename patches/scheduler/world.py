"""The other scheduler processes of a model, on every node: whether they run the plugin too."""

import json
from datetime import timedelta
from typing import Any

from soft_sglang.patches.announcement import HANDSHAKE
from soft_sglang.patches.record import When, patch

_WAIT = timedelta(hours=1)
"""For a process that loads or captures graphs long after this one is ready."""
_SEEN, _ANNOUNCEMENT = "soft_sglang/seen/{}", "soft_sglang/announcement/{}"
"""Keys of a process' rank in the store that all of them share."""


@patch(
    "model_executor.model_runner.ModelRunner.init_torch_distributed",
    When.BEFORE,
    why=(
        "With --nnodes above 1 the start messages of the other nodes' processes never leave their "
        "node, and one without the plugin would send no sign of it either."
    ),
    how=(
        "Leaves a sign in the store that the processes found each other by. SGLang reduces a "
        "number over all of them here, so whoever is past it sees every sign there is."
    ),
    upstream="SGLang's nodes do not compare their environments.",
)
def leave_sign(self: Any) -> None:
    """Tell the other processes that the plugin is active in this one."""
    store, rank, _ = _world()
    store.set(_SEEN.format(rank), "")


def announcements_of_all(own: dict[str, Any]) -> list[dict[str, Any]]:
    """What the processes of a model announce, in the order of their ranks.

    To be called by each of them, once it is ready: waits for the others, if all have the plugin.

    Args:
        own: of this process.

    Returns:
        Theirs; if one runs without the plugin, what stands for it is all that there is.
    """
    store, rank, size = _world()
    if size == 1:
        return [own]
    for other in range(size):
        if not store.check([_SEEN.format(other)]):
            return [{HANDSHAKE: f"not loaded by rank {other} of {size}"}]
    store.set(_ANNOUNCEMENT.format(rank), json.dumps(own))
    keys = [_ANNOUNCEMENT.format(other) for other in range(size)]
    store.wait(keys, _WAIT)
    return [json.loads(store.get(key)) for key in keys]


def _world() -> tuple[Any, int, int]:
    """The store of the processes of this model, this one's rank, and their number."""
    from torch.distributed import distributed_c10d as c10d

    return c10d._get_default_store(), c10d.get_rank(), c10d.get_world_size()
