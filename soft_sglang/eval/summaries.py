"""What the tables and plots say of one block of answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from soft_sglang.eval.measurements import Block, Dataset, Model
from soft_sglang.eval.statistics import Bootstrap, Estimate, average, pass_at_k

AVERAGE = "average"
"""Name of the column over all datasets."""


@dataclass(frozen=True)
class Summary:
    """Statistics of one arm on one dataset, or of its average over datasets.

    Attributes:
        accuracy: pass@1 in percent: mean over the samples of a problem, then over problems.
        tokens: mean generated tokens of all answers.
        tokens_correct: the same of the correct answers alone; NaN if none is.
    """

    accuracy: Estimate
    tokens: Estimate
    tokens_correct: Estimate


@dataclass(frozen=True)
class BlockSummary(Summary):
    """Statistics of a complete block.

    Attributes:
        pass_at: pass@k in percent, for k = 1, 2, 4, … and the number of samples.
        thinking_tokens: mean over the answers where it is known; NaN if it is nowhere.
        ends: share of soft answers in percent by how thinking ended; None for ordinary arms.
        cut: share of answers that reached the limit of new tokens, in percent.
        opinions: accuracy by other graders, of those that judged every answer.
    """

    pass_at: Mapping[int, Estimate]
    thinking_tokens: float
    ends: Mapping[str, float] | None
    cut: float
    opinions: Mapping[str, Estimate]


@dataclass(frozen=True)
class Results:
    """A model with the summaries of its complete arms, by dataset and then by arm."""

    model: Model
    summaries: Mapping[str, Mapping[str, BlockSummary]]

    @classmethod
    def of(cls, model: Model) -> "Results":
        return cls(model, {name: summarise(d) for name, d in model.datasets.items()})

    def columns(self, names: Sequence[str]) -> dict[str, Mapping[str, Summary]]:
        """Summaries by arm, of each dataset; then of the average over them if they are several.

        A dataset that this model lacks is empty, and so is then the average.
        """
        columns: dict[str, Mapping[str, Summary]] = {n: self.summaries.get(n, {}) for n in names}
        if len(names) > 1:
            whole = set(names) == self.summaries.keys()
            columns[AVERAGE] = averages(self.model, self.summaries) if whole else {}
        return columns


def summarise(dataset: Dataset) -> dict[str, BlockSummary]:
    """Summaries of the complete arms of a dataset. All come from the same resamples: paired."""
    complete = {arm: block for arm, block in dataset.blocks.items() if block.complete}
    if not complete:
        return {}
    bootstrap = Bootstrap(len(next(iter(complete.values())).problems), dataset.name)
    return {arm: _summary(block, bootstrap) for arm, block in complete.items()}


def averages(
    model: Model, by_dataset: Mapping[str, Mapping[str, BlockSummary]]
) -> dict[str, Summary]:
    """Means over the model's datasets, of the arms that are complete on all of them."""
    everywhere = [arm for arm in model.arms if all(arm in of for of in by_dataset.values())]
    return {arm: _average([of[arm] for of in by_dataset.values()]) for arm in everywhere}


def relative(changed: Estimate, reference: Estimate) -> Estimate:
    """Change from `reference` to `changed` in percent of `reference`; paired."""
    return ((changed - reference) / reference).times(100)


def _average(summaries: Sequence[Summary]) -> Summary:
    return Summary(
        accuracy=average([summary.accuracy for summary in summaries]),
        tokens=average([summary.tokens for summary in summaries]),
        tokens_correct=average([summary.tokens_correct for summary in summaries]),
    )


def _summary(block: Block, bootstrap: Bootstrap) -> BlockSummary:
    correct = block.correct
    solved = correct.sum(axis=1)
    ks = sorted({2**power for power in range(block.samples.bit_length())} | {block.samples})
    thinking = block.thinking_tokens[np.isfinite(block.thinking_tokens)]
    ends = block.ends
    return BlockSummary(
        accuracy=bootstrap.proportion(correct.mean(axis=1)).times(100),
        tokens=bootstrap.mean(block.tokens.mean(axis=1)),
        tokens_correct=bootstrap.ratio((block.tokens * correct).sum(axis=1), solved),
        pass_at={
            k: bootstrap.proportion(pass_at_k(block.samples, solved.astype(np.int64), k)).times(100)
            for k in ks
        },
        thinking_tokens=float(thinking.mean()) if thinking.size else math.nan,
        ends={end: 100 * count / ends.total() for end, count in ends.items()} if ends else None,
        cut=100 * block.cut / block.expected,
        opinions={
            grader: bootstrap.proportion(judged.mean(axis=1)).times(100)
            for grader in block.opinions
            if np.isfinite(judged := block.correct_by(grader)).all()
        },
    )
