"""How all plots look: one colour and mark per arm everywhere, readable for the colour-blind."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from soft_sglang.eval.statistics import Floats

DPI = 130
WIDTH = 8.0
"""Of a plot, in inches."""
GREY = "#767676"

# Okabe and Ito 2008, without yellow, which is hard to see on white
_BLACK, _ORANGE, _SKY, _GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
_BLUE, _VERMILLION, _PURPLE = "#0072B2", "#D55E00", "#CC79A7"


@dataclass(frozen=True)
class Look:
    """Of one arm; a hollow mark tells it from another arm of the same colour."""

    colour: str
    marker: str
    hollow: bool = False


_LOOKS: Mapping[str, Look] = {
    "cot": Look(_BLACK, "o"),
    "cot_stock": Look(_BLACK, "o", hollow=True),
    "cot_greedy": Look(_BLACK, "s", hollow=True),
    "cold_stop_only": Look(_BLUE, "D"),
    "soft": Look(_VERMILLION, "o"),
    "soft_no_cold_stop": Look(_VERMILLION, "o", hollow=True),
    "gumbel": Look(_ORANGE, "^"),
    "dirichlet": Look(_ORANGE, "v", hollow=True),
    "average_embedding": Look(_GREEN, "P"),
    "coconut_tf": Look(_GREEN, "X", hollow=True),
    "mixture_of_inputs": Look(_PURPLE, "<"),
    "swi_reasoning": Look(_PURPLE, ">", hollow=True),
    "selar": Look(_SKY, "p"),
}


def look(arm: str) -> Look:
    """Of an arm by name."""
    return _LOOKS.get(arm, Look(GREY, "."))


@contextmanager
def plain_style() -> Iterator[None]:
    """Matplotlib's defaults with our changes, whatever the user's own settings are."""
    ours = {
        "font.size": 9.0,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.0,
        "axes.titlelocation": "left",
        "axes.edgecolor": GREY,
        "xtick.color": "#444444",
        "ytick.color": "#444444",
    }
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **ours}):  # type: ignore[dict-item]
        yield


def panels(heights: Sequence[float], columns: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a grid of axes; `heights` of its rows in inches."""
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.4), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=list(heights))
    return figure, [list(row) for row in axes]


def save(figure: Figure, path: Path) -> None:
    """Write a PNG without a date or a version in it."""
    with plain_style():
        figure.savefig(path, format="png", metadata={"Software": None})


def file_name(*parts: str) -> str:
    """A name for an image; whatever is not a letter, digit or full stop becomes a hyphen."""
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in parts) + ".png"


def whole_bins(largest: float, about: int) -> Floats:
    """Edges of bins for counts from 0 to `largest`, all as wide, with the same whole numbers each.

    Args:
        largest: a whole number.
        about: at most so many bins.
    """
    width = max(1, math.ceil((largest + 1) / about))
    return np.arange(0, largest + width + 1, width) - 0.5


def spans_decades(values: Floats) -> bool:
    """Whether positive values are so far apart that an axis is better logarithmic."""
    low, high = np.quantile(values, [0.02, 0.98])
    return bool(high > 20 * max(low, 1))
