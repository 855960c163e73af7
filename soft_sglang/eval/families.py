"""Arms of one dataset that differ in the thresholds of Cold Stop and in nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

from soft_sglang.eval.cold_stop import rest_of
from soft_sglang.eval.measurements import Block, Dataset


@dataclass(frozen=True)
class Family:
    """Such arms, Cold Stop switched off among them.

    With one seed they think the same thought, up to where the first of them is stopped.
    """

    blocks: Sequence[Block]
    """At least one, in the order of the tables."""

    @property
    def without_cold_stop(self) -> Block | None:
        """The first arm that has Cold Stop off."""
        return next((block for block in self.blocks if block.thresholds is None), None)

    @property
    def is_swept(self) -> bool:
        """Whether more than one pair of thresholds was run."""
        return len({block.thresholds for block in self.blocks if block.thresholds}) > 1

    @property
    def least_stopped(self) -> Block | None:
        """Of the arms with recorded thoughts the one that Cold Stop ended least often."""
        recorded = [block for block in self.blocks if block.thoughts]
        return min(recorded, key=_share_stopped, default=None)


def families(dataset: Dataset) -> list[Family]:
    """Every soft arm is in one family; ordinary and unknown arms are in none."""
    members: dict[str, list[Block]] = {}
    for block in dataset.blocks.values():
        if block.request is not None:
            members.setdefault(rest_of(block.request), []).append(block)
    return [Family(blocks) for blocks in members.values()]


def _share_stopped(block: Block) -> float:
    return block.ends["cold_stop"] / block.ends.total()
