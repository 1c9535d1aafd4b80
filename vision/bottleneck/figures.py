"""The bottleneck figures: accuracy and alignment against b, beside the published points, and alignment by epoch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.report import Figure
from harness.report.figures import band, canvas, png
from harness.tables import RunContext
from harness.tables.aggregate import lines_of, summarise
from vision.bottleneck.tables import BOTTLENECK, PAI, STD

LOOKS = {"std": ("#E69F00", "standard start"), "pai": ("#0072B2", "pre-aligned (PAI)")}
PANELS = (("test accuracy", "test accuracy, %", 0), ("cosine 2 x 100", "alignment 2, cosine x 100", 3))
CURVES = {  # curve of a run: its label, colour and line
    "alignment 1": ("tanh 1, separate masks", "#999999", ":"),
    "alignment 1, same mask": ("tanh 1, same mask", "#56B4E9", "-"),
    "alignment 2": ("tanh 2", "#009E73", "-"),
    "alignment 3": ("tanh 3", "#444444", "-"),
}
Runs = dict[tuple[str, int], list[dict[str, Any]]]  # curves of the runs of a start and a b
SHOWN = 4  # sizes whose epochs are drawn, from the smallest to the largest


def figures(results_dir: Path, context: RunContext) -> Iterable[Figure]:
    """The published figure, and alignment by epoch, of what was run at the context's scale."""
    lines = lines_of(BOTTLENECK, results_dir, context.scale)
    if lines:
        yield against_size(lines)
    if runs := by_size(lines):
        yield from by_epoch(runs)


def against_size(lines: list[dict[str, Any]]) -> Figure:
    """Test accuracy and alignment after the second tanh, for every b."""
    figure = canvas(7.4, 3.2)
    panels = figure.subplots(1, len(PANELS))
    for axes, (column, label, place) in zip(panels, PANELS, strict=True):
        for init, published in (("std", STD), ("pai", PAI)):
            colour, name = LOOKS[init]
            theirs = {size: numbers[place] * (1 if place < 2 else 100) for size, numbers in published.items()}
            axes.plot(theirs.keys(), theirs.values(), "D", color=colour, fillstyle="none", markersize=4)
            ours = measured(lines, column, init)
            axes.plot(ours.keys(), ours.values(), "o-", color=colour, label=name, markersize=4)
        axes.set(xscale="log", xlabel="b, entries kept of 800", ylabel=label)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    caption = (
        "How much of the middle layer's gradients DFA needs. Diamonds: published, after 50 epochs; dots: ours, at the "
        "length that the table states."
    )
    return Figure(title="DFA through a bottleneck", caption=caption, image=png(figure))


def by_epoch(runs: Runs) -> Iterable[Figure]:
    """Alignment after each tanh over the epochs: a row of panels for each start, a column for each b run with all."""
    inits = [init for init in LOOKS if any(init == found for found, _ in runs)]
    sizes = spread(sorted({size for _, size in runs if all((init, size) in runs for init in inits)}), SHOWN)
    if not sizes:
        return
    figure = canvas(2.3 * len(sizes) + 0.8, 2.0 * len(inits) + 0.8)
    panels = figure.subplots(len(inits), len(sizes), sharex=True, sharey=True, squeeze=False)
    for init, row in zip(inits, panels, strict=True):
        for size, axes in zip(sizes, row, strict=True):
            for curve, (label, colour, style) in CURVES.items():
                band(axes, [run[curve] for run in runs[init, size]], label, colour)
                axes.lines[-1].set_linestyle(style)
            axes.set(title=f"b = {size}, {init.upper()}", ylim=(-0.1, 1.05))
        row[0].set_ylabel("cosine")
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(CURVES), frameon=False)
    caption = (
        "Cosine between DFA's gradient and backpropagation's after each tanh, on one batch of test images. Separate "
        "masks, as published, hide how well the first layer is aligned: one and the same mask shows it."
    )
    yield Figure(title="Alignment through a bottleneck, by epoch", caption=caption, image=png(figure))


def by_size(lines: list[dict[str, Any]]) -> Runs:
    """Curves of the runs that have any, by start and b."""
    presets = {cell.key: cell.preset for cell in BOTTLENECK.cells if cell.method == "dfa"}
    found: Runs = {}
    for line in lines:
        curves = line["result"].get("curves", {})
        if line["preset"] in presets and curves.keys() >= CURVES.keys():
            preset = presets[line["preset"]]
            found.setdefault((preset.init, preset.kept), []).append(curves)
    return found


def spread(sizes: list[int], count: int) -> list[int]:
    """At most `count` of `sizes`, evenly chosen, the first and the last among them.

    Example:
        >>> spread([1, 3, 5, 8, 11, 18, 28], 3)
        [1, 8, 28]
    """
    if len(sizes) <= count:
        return sizes
    return [sizes[round(step * (len(sizes) - 1) / (count - 1))] for step in range(count)]


def measured(lines: list[dict[str, Any]], column: str, init: str) -> dict[int, float]:
    """Our mean by b, where there is one."""
    cells = [c for c in BOTTLENECK.cells if (c.column, c.preset.init, c.method) == (column, init, "dfa")]
    means = {cell.preset.kept: summarise(BOTTLENECK, cell, lines).mean for cell in cells}
    return {size: mean for size, mean in means.items() if mean is not None}
