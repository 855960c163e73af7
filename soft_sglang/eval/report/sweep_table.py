"""Accuracy and tokens of arms that differ in the thresholds of Cold Stop alone."""

from soft_sglang.eval.families import Family, families
from soft_sglang.eval.measurements import BASELINE, Block, Dataset
from soft_sglang.eval.report import markdown
from soft_sglang.eval.report.detail_tables import Summaries
from soft_sglang.eval.summaries import relative

_HOW_TO_READ = """\
Arms that differ in Cold Stop's thresholds alone, fewest tokens first. An arm in bold is more
accurate than every one above it; the others need more tokens than one that is as accurate.
Thresholds that are chosen by these numbers look better on these problems than on others: choose by
some problems, and report on others."""


def sweep_section(dataset: Dataset, summaries: Summaries) -> list[str]:
    """A table in Markdown for every policy with several thresholds; nothing if there is none."""
    swept = [family for family in families(dataset) if family.is_swept]
    if not swept:
        return []
    tables = [_table(family, summaries) for family in swept]
    return ["#### Thresholds of Cold Stop", _HOW_TO_READ, *tables]


def _table(family: Family, summaries: Summaries) -> str:
    """Changes are against the arm without Cold Stop, or against the baseline without one."""
    complete = [block for block in family.blocks if block.arm in summaries]
    complete.sort(key=lambda block: summaries[block.arm].tokens.value)
    without = family.without_cold_stop
    reference = BASELINE if without is None else without.arm
    against = f" against `{reference}`" if reference in summaries else ""
    header = [
        *("fewest tokens first", "Cold Stop", "ended by it, %"),
        *("tokens", f"change in %{against}", "pass@1", f"change in points{against}"),
    ]
    rows, best = [], -1.0
    for block in complete:
        accuracy = summaries[block.arm].accuracy.value
        rows.append(_row(block, reference, summaries, bold=accuracy > best))
        best = max(best, accuracy)
    waiting = [block for block in family.blocks if block.arm not in summaries]
    rows += [_incomplete(block, len(header)) for block in waiting]
    return markdown.table(header, rows)


def _row(block: Block, reference: str, summaries: Summaries, bold: bool) -> list[str]:
    summary = summaries[block.arm]
    tokens = accuracy = markdown.NONE
    if reference in summaries and block.arm != reference:
        other = summaries[reference]
        tokens = markdown.change_with_interval(relative(summary.tokens, other.tokens))
        accuracy = markdown.change_with_interval(summary.accuracy - other.accuracy)
    return [
        f"**{block.title}**" if bold else block.title,
        str(block.thresholds or markdown.NONE),
        markdown.plain((summary.ends or {}).get("cold_stop", 0)),
        markdown.tokens_with_interval(summary.tokens),
        tokens,
        markdown.with_interval(summary.accuracy),
        accuracy,
    ]


def _incomplete(block: Block, columns: int) -> list[str]:
    cells = [block.title, str(block.thresholds or markdown.NONE), f"**{block.progress}** answers"]
    return cells + [markdown.NONE] * (columns - len(cells))
