"""Draws what ``benchmark_kernels.py`` measured."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display
import matplotlib.pyplot as plt

Series = dict[str, list[tuple[int, float]]]


def plot(result: dict[str, Any], file: Path) -> None:
    """Write a PNG: the time of each implementation over the batch size."""
    panels = _panels(result["measurements"])
    if not panels:
        raise SystemExit("nothing to plot: no case was measured at several batch sizes")
    figure, axes = plt.subplots(
        1, len(panels), figsize=(6 * len(panels), 4.8), squeeze=False, layout="constrained"
    )
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        for name, points in series.items():
            floor = name == "floor"
            x, y = zip(*sorted(points), strict=True)
            axis.plot(x, y, "k--" if floor else "o-", label=name, linewidth=1.2, markersize=4)
        axis.set(title=title, xlabel="batch size", ylabel="µs", xscale="log", yscale="log")
        ticks = sorted({x for points in series.values() for x, _ in points})
        axis.set_xticks(ticks, [str(x) for x in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    device = result["device"]
    rate = result["copy_bytes_per_second"] / 1e9
    text = f"{device['name']}, copies at {rate:.0f} GB/s"
    if result["interpreted"]:
        text += "; in Triton's interpreter: these times mean nothing"
    elif device["type"] == "cpu":
        text += "; 'ours' are the PyTorch references"
    figure.suptitle(text)
    figure.savefig(file, dpi=150)


def _panels(measurements: list[dict[str, Any]]) -> dict[str, Series]:
    """The two kinds of step and of embedding with the most batch sizes, by title."""
    groups: dict[tuple[str, str], Series] = defaultdict(lambda: defaultdict(list))
    for m in measurements:
        if m["tuning"] is not None:
            continue
        case = dict(m["case"])
        batch = case.pop("batch")
        series = groups[m["operation"], _title(m["operation"], case)]
        series["floor"].append((batch, m["floor_us"]))
        for name, timing in m["times"].items():
            series[name].append((batch, timing["median"]))
    panels: dict[str, Series] = {}
    for operation in ("step", "embedding"):
        kinds = [(title, s) for (o, title), s in groups.items() if o == operation]
        kinds.sort(key=lambda kind: -len(kind[1]["floor"]))  # stable: the first measured ones
        panels.update({t: s for t, s in kinds[:2] if len(s["floor"]) > 1})
    return panels


def _title(operation: str, case: dict[str, Any]) -> str:
    if operation == "step":
        kind = f"{case['logits']} logits, {case['setting']}, {case['phase']}"
        return f"step, V={case['vocab']}, {kind}"
    dtype = case["dtype"].removeprefix("torch.")
    weights = "all weights non-zero" if case["weights"] == "all" else "one weight non-zero"
    return f"embedding, K={case['width']}, D={case['dim']}, {dtype}, {weights}"
