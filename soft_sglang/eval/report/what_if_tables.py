"""How long entropy stays low in recorded thoughts, and what other thresholds would have cut."""

from collections.abc import Sequence

import numpy as np

from soft_sglang.eval.families import families
from soft_sglang.eval.measurements import Block, Dataset
from soft_sglang.eval.report import markdown
from soft_sglang.eval.what_if import Cuts, Grid, cuts, longest_runs

_RUNS = """\
The longest run of steps in a row whose entropy is below a threshold: what half of the thoughts have
at most / what 90 % have at most / the longest of all. Cold Stop ends a thought when its run is as
long as the length threshold."""

_WHAT_IF = """\
Counted in the recorded thoughts, in percent: **thoughts that would have been stopped / steps of all
thinking that would have been saved / right answers among those of the stopped thoughts**. What the
model would have answered after an earlier stop is **not known**: the last number is of the answers
as they are, after the whole thought. Of arms that differ in these thresholds alone, the one that
Cold Stop ended least often is shown; how a thought that it ended would have gone on is not known
either, and where that matters there is only a lower bound of the thoughts stopped (≥)."""


def what_if_section(dataset: Dataset) -> list[str]:
    """Two tables in Markdown; nothing if no thought of the dataset was recorded."""
    blocks = [block for block in dataset.blocks.values() if block.thoughts]
    if not blocks:
        return []
    grid = Grid.of(dataset)
    shown = [found for family in families(dataset) if (found := family.least_stopped)]
    return [
        "#### Low-entropy runs",
        _RUNS,
        _runs_table(blocks, grid),
        *_silent(blocks),
        "#### What other thresholds would have cut",
        _WHAT_IF,
        _cuts_table(shown, grid),
    ]


def _runs_table(blocks: Sequence[Block], grid: Grid) -> str:
    header = [
        *("longest run, in steps", "thoughts", "Cold Stop", "ended by it, %"),
        *(f"below {entropy:g} nats" for entropy in grid.entropies),
    ]
    rows = [
        [
            block.title,
            str(len(block.thoughts)),
            str(block.thresholds or markdown.NONE),
            _ended(block),
            *(_distribution(block, entropy) for entropy in grid.entropies),
        ]
        for block in blocks
    ]
    return markdown.table(header, rows)


def _cuts_table(blocks: Sequence[Block], grid: Grid) -> str:
    header = [
        *("stopped / saved / right, %", "ended already, %", "below"),
        *(f"{length} steps" for length in grid.lengths),
    ]
    rows = []
    for block in blocks:
        for entropy in grid.entropies:
            of_lengths = _cells(cuts(block, entropy, grid.lengths))
            rows.append([block.title, _ended(block), f"{entropy:g} nats", *of_lengths])
    return markdown.table(header, rows)


def _cells(found: Cuts) -> list[str]:
    columns = zip(found.stopped, found.saved, found.right, strict=True)
    cells = [" / ".join(markdown.plain(share) for share in shares) for shares in columns]
    bounds = [f"≥ {markdown.plain(share)}" for share in found.stopped]
    return np.where(found.known, cells, bounds).tolist()


def _distribution(block: Block, entropy: float) -> str:
    runs = longest_runs(block, entropy)
    half, most = np.quantile(runs, [0.5, 0.9], method="inverted_cdf")
    return f"{half} / {most} / {runs.max()}"


def _ended(block: Block) -> str:
    return markdown.plain(100 * block.ends["cold_stop"] / block.ends.total())


def _silent(blocks: Sequence[Block]) -> list[str]:
    """Why Cold Stop ended nothing, where that is so."""
    sentences = []
    for block in blocks:
        own = block.thresholds
        if own is not None and not block.ends["cold_stop"]:
            longest = longest_runs(block, own.entropy).max()
            sentences.append(
                f"Cold Stop ended no thought of {block.title}: it waits for {own.length} steps in "
                f"a row below {own.entropy:g} nats, and the longest such run has {longest}."
            )
    return [" ".join(sentences)] if sentences else []
