"""The report of one or several runs: Markdown tables and plots, from the raw files alone."""

from collections.abc import Sequence
from pathlib import Path

from soft_sglang.eval.measurements import BASELINE, read_models
from soft_sglang.eval.plots import accuracy_against_tokens, of_dataset
from soft_sglang.eval.report import markdown
from soft_sglang.eval.report.ablation import ablation
from soft_sglang.eval.report.detail_tables import accuracy_table, speed_table, tokens_table
from soft_sglang.eval.report.paper_table import paper_table
from soft_sglang.eval.report.settings_list import settings_list
from soft_sglang.eval.report.sweep_table import sweep_section
from soft_sglang.eval.report.what_if_tables import what_if_section
from soft_sglang.eval.statistics import LEVEL, RESAMPLES
from soft_sglang.eval.summaries import Results

FILE = "report.md"

_HOW_TO_READ = f"""\
Every number is calculated from the raw answers; `python -m soft_sglang.eval report` does it again.
Intervals in brackets cover {100 * LEVEL:.0f} %: bootstrap over problems, {RESAMPLES:,} resamples,
the samples of a problem together. Changes are against CoT (sampling), paired by problem. A star
marks a change whose interval excludes 0, without correction for the number of comparisons. [–] is
where all resamples are the same (as when no problem differs): they say nothing about the error."""

_NO_BASELINE = """\
**No changes.** The arm `cot`, which changes are against, is not among the arms of: """

_INCOMPLETE = """\
**Incomplete.** These arms lack answers or grades. They have no intervals, are compared with nothing
and are in no average. Running the same command again completes them; `python -m soft_sglang.eval
grade FOLDER` grades what there is."""

_ALL_ANSWERS = """\
pass@1 in percent, and mean tokens of **all** answers, thinking and answer together."""

_CORRECT_ANSWERS = """\
The same with the tokens of **correct** answers alone, which is what arXiv 2505.15778 counts. Arms
that fail where answers are long look better here."""

_ABLATION = """\
Cold Stop and mixtures, each alone and each on top of the other. Tokens are those of all answers, in
percent of CoT's in every row, so that steps add up. "Not distinguishable" means that the interval
includes 0: there may be no difference, or too few problems to see it."""


def write_report(folders: Sequence[Path], out: Path, plots: bool = True) -> Path:
    """Write `out`/report.md and its plots; the same raw files give the same bytes.

    Args:
        folders: of runs; several are several models, datasets or arms.
        out: created if it is missing; files of the same names are replaced.
        plots: whether to draw, which takes most of the time.

    Returns:
        The Markdown file.

    Raises:
        RecordError: a file of a run is missing or broken.
        ReportError: the runs cannot be compared; see `measurements.read_models`.
    """
    results = [Results.of(model) for model in read_models(folders)]
    out.mkdir(parents=True, exist_ok=True)
    sections = [
        "# Evaluation",
        _HOW_TO_READ,
        *_incomplete(results),
        *_without_baseline(results),
        "## Accuracy and generation length",
        _ALL_ANSWERS,
        paper_table(results, lambda summary: summary.tokens),
        _CORRECT_ANSWERS,
        paper_table(results, lambda summary: summary.tokens_correct),
        *_ablations(results),
    ]
    for result in results:
        sections += _details(result, out if plots else None)
    sections += ["## Settings", *(settings_list(result.model) for result in results)]
    file = out / FILE
    file.write_text("\n\n".join(sections) + "\n")
    return file


def _incomplete(results: Sequence[Results]) -> list[str]:
    rows = [
        [result.model.name, dataset.name, block.title, block.progress, str(block.ungraded)]
        for result in results
        for dataset in result.model.datasets.values()
        for block in dataset.blocks.values()
        if not block.complete
    ]
    header = ["model", "dataset", "arm", "graded answers", "answers without a grade"]
    return [_INCOMPLETE, markdown.table(header, rows)] if rows else []


def _without_baseline(results: Sequence[Results]) -> list[str]:
    names = [
        f"{result.model.name} on {dataset.name}"
        for result in results
        for dataset in result.model.datasets.values()
        if BASELINE not in dataset.blocks
    ]
    return [_NO_BASELINE + ", ".join(names) + "."] if names else []


def _ablations(results: Sequence[Results]) -> list[str]:
    """Where the saving comes from, by model and dataset."""
    sections = []
    for result in results:
        for name, summaries in result.columns(list(result.summaries)).items():
            text = ablation(summaries)
            if text:
                sections += [f"### {result.model.name}, {name}", *text]
    return ["## Where the saving comes from", _ABLATION, *sections] if sections else []


def _details(result: Results, images: Path | None) -> list[str]:
    model, summaries = result.model, result.summaries
    sections = [f"## {model.name}, in detail"]
    if images:
        sections += accuracy_against_tokens(model, summaries, images)
    for name, dataset in model.datasets.items():
        sections += [
            f"### {model.name} on {name}",
            accuracy_table(dataset, summaries[name]),
            tokens_table(dataset, summaries[name]),
            speed_table(dataset),
            *sweep_section(dataset, summaries[name]),
            *what_if_section(dataset),
        ]
        if images:
            sections += of_dataset(model, dataset, images)
    return sections
