"""Tables of one dataset: accuracy, tokens and speed of every arm, with intervals."""

from collections.abc import Mapping

import numpy as np

from soft_sglang.eval.measurements import BASELINE, Block, Dataset
from soft_sglang.eval.report import markdown
from soft_sglang.eval.statistics import Floats
from soft_sglang.eval.summaries import BlockSummary, relative

Summaries = Mapping[str, BlockSummary]

_ENDS = {
    "cold_stop": "ended by Cold Stop, %",
    "budget": "ended by the budget, %",
    "closed": "closed by the prompt, %",
}
"""Columns by the value of ``end``; only the first is there even if no thought ended so."""

_SEEDED = """\
CoT (sampling) draws by the request's seed and measures every token's entropy, as the policy
`discrete`; its tokens per second are not those of stock SGLang, which the arm `cot_stock` has."""


def accuracy_table(dataset: Dataset, summaries: Summaries) -> str:
    """pass@1, its change against the baseline, pass@k, and pass@1 by other graders."""
    ks = sorted({k for summary in summaries.values() for k in summary.pass_at if k > 1})
    graders = sorted({grader for summary in summaries.values() for grader in summary.opinions})
    header = [
        *("accuracy, %", "answers", "pass@1", "change in points"),
        *(f"pass@{k}" for k in ks),
        *(f"pass@1 by {grader}" for grader in graders),
    ]
    rows = []
    for arm, block in dataset.blocks.items():
        if arm not in summaries:
            rows.append(_incomplete(block, 100 * _mean(block.correct), len(header)))
            continue
        summary = summaries[arm]
        change = markdown.NONE
        if arm != BASELINE and BASELINE in summaries:
            change = markdown.change_with_interval(summary.accuracy - summaries[BASELINE].accuracy)
        accuracy = markdown.with_interval(summary.accuracy)
        passes = [markdown.with_interval(summary.pass_at[k]) for k in ks]
        opinions = [
            markdown.with_interval(summary.opinions[g]) if g in summary.opinions else markdown.NONE
            for g in graders
        ]
        rows.append([block.title, block.progress, accuracy, change, *passes, *opinions])
    return markdown.table(header, rows)


def tokens_table(dataset: Dataset, summaries: Summaries) -> str:
    """Tokens of all answers, their change against the baseline, and what they were spent on."""
    present = {end for summary in summaries.values() for end in summary.ends or ()}
    ends = {end: text for end, text in _ENDS.items() if end in present or end == "cold_stop"}
    header = [
        *("tokens", "answers", "all answers", "change in %", "correct answers", "thinking"),
        *(*ends.values(), "cut at the limit, %"),
    ]
    rows = []
    for arm, block in dataset.blocks.items():
        if arm not in summaries:
            rows.append(_incomplete(block, _mean(block.tokens), len(header)))
            continue
        summary = summaries[arm]
        change = markdown.NONE
        if arm != BASELINE and BASELINE in summaries:
            baseline = summaries[BASELINE].tokens
            change = markdown.change_with_interval(relative(summary.tokens, baseline))
        all_answers = markdown.tokens_with_interval(summary.tokens)
        correct = markdown.tokens_with_interval(summary.tokens_correct)
        thinking = markdown.tokens(summary.thinking_tokens)
        shares = [
            markdown.NONE if summary.ends is None else markdown.plain(summary.ends.get(end, 0))
            for end in ends
        ]
        cut = markdown.plain(summary.cut)
        rows.append(
            [block.title, block.progress, all_answers, change, correct, thinking, *shares, cut]
        )
    return markdown.table(header, rows)


def speed_table(dataset: Dataset) -> str:
    """Wall-clock time of every arm, all its sessions together; and what CoT's rate is not."""
    header = ["speed", "timed answers", "tokens", "tokens per second", "time"]
    rows = []
    for block in dataset.blocks.values():
        answers = sum(timing.answers for timing in block.timings)
        tokens = sum(timing.tokens for timing in block.timings)
        seconds = sum(timing.seconds for timing in block.timings)
        rate = markdown.plain(tokens / seconds) if seconds else markdown.NONE
        time = markdown.duration(seconds) if block.timings else markdown.NONE
        rows.append([block.title, str(answers), str(tokens), rate, time])
    table = markdown.table(header, rows)
    return f"{table}\n\n{_SEEDED}" if BASELINE in dataset.blocks else table


def _incomplete(block: Block, value: float, columns: int) -> list[str]:
    """The mean of what is there, in italics, and nothing that would compare it."""
    shown = markdown.NONE if np.isnan(value) else f"*{markdown.plain(value)}*"
    cells = [block.title, f"**{block.progress}**", shown]
    return cells + [markdown.NONE] * (columns - len(cells))


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
