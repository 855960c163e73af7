"""The report's plots, PNG. Each function writes files and returns the Markdown that shows them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from soft_sglang.eval.measurements import Dataset, Model
from soft_sglang.eval.plots import (
    accuracy_tokens,
    cold_stop_cuts,
    entropy_steps,
    thinking_lengths,
    threshold_curves,
)
from soft_sglang.eval.plots.style import file_name, save
from soft_sglang.eval.summaries import BlockSummary

_OF_DATASET: Mapping[str, tuple[str, Callable[[Dataset], Figure | None]]] = {
    "thinking-lengths": ("Length of thinking, by arm", thinking_lengths.draw),
    "entropy": ("Entropy over the steps of thought, by arm", entropy_steps.draw),
    "cold-stop": ("Where Cold Stop cuts", cold_stop_cuts.draw),
    "thresholds": ("What other thresholds would have cut", threshold_curves.draw),
}


def accuracy_against_tokens(
    model: Model, summaries: Mapping[str, Mapping[str, BlockSummary]], out: Path
) -> list[str]:
    """One plot with a panel for every dataset that has a complete arm; none if none has."""
    figure = accuracy_tokens.draw(summaries)
    if figure is None:
        return []
    return [_written(figure, out / file_name(model.name, "accuracy-tokens"), "Accuracy and tokens")]


def of_dataset(model: Model, dataset: Dataset, out: Path) -> list[str]:
    """The plots of one dataset. One is left out where no arm has what it shows."""
    shown = []
    for kind, (title, draw) in _OF_DATASET.items():
        figure = draw(dataset)
        if figure is not None:
            path = out / file_name(model.name, dataset.name, kind)
            shown.append(_written(figure, path, f"{title}: {dataset.name}"))
    return shown


def _written(figure: Figure, path: Path, title: str) -> str:
    save(figure, path)
    return f"![{title}]({path.name})"
