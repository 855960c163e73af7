"""What a run asks: every arm, problem and sample, in blocks of one arm on one dataset."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from soft_sglang.eval.arms import Arm, SoftDefaults
from soft_sglang.eval.client import Question, Sampling
from soft_sglang.eval.datasets import Dataset, Problem
from soft_sglang.eval.prompts import fill
from soft_sglang.eval.records import Key


@dataclass(frozen=True)
class Plan:
    """Everything that the answers of a run depend on, but the model."""

    datasets: Sequence[Dataset]
    arms: Sequence[Arm]
    samples: int
    """Of every problem, in every arm."""
    sampling: Sampling
    soft_defaults: SoftDefaults
    prompts: Mapping[str, str]
    """Template by dataset."""
    seed: int

    def blocks(self) -> list[tuple[Dataset, Arm]]:
        """In the order in which they run: an arm's answers are not mixed with another's."""
        return [(dataset, arm) for dataset in self.datasets for arm in self.arms]

    def keys(self, dataset: Dataset, arm: Arm) -> list[tuple[Key, Problem]]:
        """The answers of a block."""
        return [
            (Key(arm.name, dataset.name, problem.id, sample), problem)
            for problem in dataset.problems
            for sample in range(self.samples)
        ]

    def question(self, arm: Arm, key: Key, problem: Problem) -> Question:
        """What is asked for one answer."""
        sampling = replace(self.sampling, temperature=0.0) if arm.greedy else self.sampling
        soft_thinking: bool | dict[str, Any] = arm.soft_thinking(self.soft_defaults)
        return Question(
            message=fill(self.prompts[key.dataset], problem.question),
            sampling=sampling,
            soft_thinking=soft_thinking,
            seed=sample_seed(self.seed, key.dataset, key.problem, key.sample),
        )


def sample_seed(seed: int, dataset: str, problem: str, sample: int) -> int:
    """Seed of one sample, the same for every arm; from 0 to 2^31 - 1."""
    name = f"{seed}\0{dataset}\0{problem}\0{sample}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1
