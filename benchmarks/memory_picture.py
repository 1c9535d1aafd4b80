"""The picture of `benchmarks.memory`: peak memory over depth for every contestant, and step time over the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.figures import WIDEST, canvas, png

COLOURS = {
    "bp": "#444444",
    "bp, checkpoint": "#888888",
    "dfa": "#E69F00",
    "dfa, replay": "#0072B2",
    "dkp, replay": "#117733",
    "fitted, replay": "#CC79A7",
    "drtp, forward": "#009E73",
}
DASHES = {"bp, checkpoint": "dashed", "dfa": "dotted", "drtp, forward": "dashed"}


def picture(rows: Sequence[Mapping[str, Any]], depths: Sequence[int], budgets: Mapping[float, float]) -> bytes:
    """A panel of memory for every model, and one of step time over the budget.

    Args:
        rows: Of `benchmarks.memory`: model, contestant and MiB at every depth.
        depths: Numbers of blocks.
        budgets: Step time over backpropagation's, by the share of the graphs that is kept; may be empty.
    """
    models = list(dict.fromkeys(row["model"] for row in rows))
    panels = len(models) + bool(budgets)
    figure = canvas(min(WIDEST, 1 + 3 * panels), 3.2)
    for number, model in enumerate(models, start=1):
        axes = figure.add_subplot(1, panels, number)
        for row in rows:
            if row["model"] == model:
                peaks = [row[f"MiB at {depth}"] for depth in depths]
                name = row["contestant"]
                style = DASHES.get(name, "solid")  # where two lie on each other, both are seen
                axes.plot(depths, peaks, "o", ls=style, color=COLOURS[name], label=name, markersize=3)
        axes.set(xscale="log", yscale="log", xlabel="blocks", ylabel="peak MiB" if number == 1 else "")
        axes.minorticks_off()
        axes.set_xticks(depths, [str(depth) for depth in depths])
        peaks_shown = [10, 30, 100, 300, 1000, 3000]
        axes.set_yticks(peaks_shown, [str(peak) for peak in peaks_shown])
        axes.set_title(model.replace(", ", "\n"), fontsize="small")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if budgets:
        axes = figure.add_subplot(1, panels, panels)
        axes.plot(list(budgets), list(budgets.values()), "o-", color=COLOURS["dfa, replay"], markersize=3)
        axes.set(xlabel="share of the graphs kept", ylabel="step time over BP")
        axes.set_title("a budget", fontsize="small")
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize="small")
    return png(figure)
