"""The theory of the linear network step by step, and stacks of weak learners by their number, drawn."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from harness.report.figures import band, canvas, png
from vision.iacolippo.stacking import StackingPreset

Results = list[dict[str, Any]]
Group = tuple[str, str, Results]  # label, colour, runs that hold curves
Stack = tuple[StackingPreset, dict[str, Any]]  # what was stacked, and the metrics of the run

PANELS = {
    "cost": "cost, log10",
    "distance": "distance to M, log10",
    "alignment": "cosine of W2^T e and B e,\nmean error",
    "alignment_weights": "cosine of W2 and B^T",
}
LINES = {  # metrics of the table "stacking": label, colour, mark
    "learner_error_mean": ("a learner alone, mean", "#444444", "o-"),
    "average_error": ("their average", "#0072B2", "s-"),
    "test_error dense": ("dense layer", "#009E73", "^-"),
    "test_error rd-bp": ("RD layer, BP", "#D55E00", "v-"),
    "test_error rd-dfa": ("RD layer, DFA", "#E69F00", "x-"),
    "test_error rd-dfa-r": ("RD layer, DFA with R as feedback", "#CC79A7", "d-"),
    "test_error rd-shallow": ("RD layer, D2 alone", "#56B4E9", "+--"),
}
CHANCE = 0.9


def draw_theory(groups: Sequence[Group]) -> bytes:
    """A panel for each quantity of `linear.measure` that the theory is about, by step; logarithms of costs."""
    figure = canvas(9.8, 3.2)
    started = any(run["curves"]["step"][-1] > 0 for _, _, runs in groups for run in runs)  # step 0 has no logarithm
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for label, colour, runs in groups:
            curves = [values(run["curves"], name) for run in runs]
            if any(value is not None for curve in curves for value in curve):
                position = max((run["curves"]["step"] for run in runs), key=len)
                band(axes, curves, label, colour, x=position)
        axes.set_title(title, fontsize="medium")
        axes.set(xlabel="step", xscale="log" if started else "linear")
        if name.startswith("alignment"):
            axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
            axes.set_ylim(-0.15, 1.05)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize="small")
    return png(figure)


def values(curves: dict[str, Any], name: str) -> list[float | None]:
    """A curve as it is drawn: costs and distances as logarithms."""
    if name.startswith("alignment"):
        return list(curves[name])
    return [math.log10(value) if value else None for value in curves[name]]


def draw_stacking(runs: Sequence[Stack]) -> bytes:
    """Error against the number of learners, a panel for each kind of start, a line for each way to combine them."""
    figure = canvas(9.0, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, start in zip(panels, ("different", "same"), strict=True):
        for metric, (label, colour, mark) in LINES.items():
            found = by_learners(runs, start, metric)
            if not found:
                continue
            numbers = sorted(found)
            means = [sum(found[n]) / len(found[n]) for n in numbers]
            axes.errorbar(
                numbers, means, [spread(found[n]) for n in numbers], fmt=mark, color=colour, label=label, capsize=2
            )
        axes.axhline(100 * CHANCE, color="black", linewidth=0.8, linestyle=":")
        axes.set(title=f"{start} initial weights", xlabel="learners", yscale="log")
        axes.set_yticks([5, 10, 20, 50, 90], ["5", "10", "20", "50", "90"])
        axes.set_xticks(sorted({preset.learners for preset, _ in runs}))
        axes.minorticks_off()
    panels[0].set_ylabel("test error, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize="small")
    return png(figure)


def by_learners(runs: Sequence[Stack], start: str, metric: str) -> dict[int, list[float]]:
    """Errors in % by number of learners; a single learner belongs to both kinds of start."""
    found: dict[int, list[float]] = defaultdict(list)
    for preset, metrics in runs:
        error = metrics.get(metric)
        if error is not None and (preset.start == start or preset.learners == 1):
            found[preset.learners].append(100 * error)
    return dict(found)


def spread(numbers: Sequence[float]) -> float:
    """Sample standard deviation; 0 for a single number."""
    mean = sum(numbers) / len(numbers)
    return math.sqrt(sum((n - mean) ** 2 for n in numbers) / max(len(numbers) - 1, 1))
