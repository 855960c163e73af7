"""The table of arXiv 2505.15778: accuracy and generation length side by side."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite

from soft_sglang.eval.arms import title_of
from soft_sglang.eval.measurements import BASELINE, Model
from soft_sglang.eval.report import markdown
from soft_sglang.eval.statistics import Estimate
from soft_sglang.eval.summaries import AVERAGE, Results, Summary, relative

Length = Callable[[Summary], Estimate]


def paper_table(results: Sequence[Results], length: Length) -> str:
    """Rows by model and arm; columns by dataset and average, first accuracy, then `length`.

    Each number is followed by its change against the baseline. An arm that is not complete has its
    number of answers instead, and no change; without a complete baseline no arm has a change.
    """
    names = list(dict.fromkeys(name for result in results for name in result.summaries))
    columns = [*names, AVERAGE] if len(names) > 1 else names
    header = [
        "",
        *(f"accuracy ↑<br>{column}" for column in columns),
        *(f"tokens ↓<br>{column}" for column in columns),
    ]
    rows = []
    for result in results:
        rows.append([f"**{result.model.name}**", *[""] * (len(header) - 1)])
        for arm in result.model.arms:
            accuracies, lengths = [], []
            for column, summaries in result.columns(names).items():
                missing = _missing(result.model, column, arm)
                accuracies.append(_accuracy(summaries, arm) if arm in summaries else missing)
                lengths.append(_tokens(summaries, arm, length) if arm in summaries else missing)
            rows.append([title_of(arm), *accuracies, *lengths])
    return markdown.table(header, rows)


def _accuracy(summaries: Mapping[str, Summary], arm: str) -> str:
    accuracy = summaries[arm].accuracy
    text = markdown.plain(accuracy.value)
    if arm == BASELINE or BASELINE not in summaries:
        return text
    return f"{text} ({markdown.marked_change(accuracy - summaries[BASELINE].accuracy)})"


def _tokens(summaries: Mapping[str, Summary], arm: str, length: Length) -> str:
    tokens = length(summaries[arm])
    text = markdown.tokens(tokens.value)
    if arm == BASELINE or BASELINE not in summaries:
        return text
    change = relative(tokens, length(summaries[BASELINE]))
    return f"{text} ({markdown.marked_change(change, '%')})" if isfinite(change.value) else text


def _missing(model: Model, column: str, arm: str) -> str:
    block = model.datasets[column].blocks.get(arm) if column in model.datasets else None
    return f"{block.progress} answers" if block else markdown.NONE
