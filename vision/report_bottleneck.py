"""The bottleneck figure: test accuracy and alignment against b, ours beside the published points."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.aggregate import summarise
from harness.execute import lines_of
from harness.figures import canvas, png
from harness.report import Figure
from harness.tables import RunContext
from vision.tables_bottleneck import BOTTLENECK, PAI, STD

LOOKS = {"std": ("#E69F00", "standard start"), "pai": ("#0072B2", "pre-aligned (PAI)")}
PANELS = (("test accuracy", "test accuracy, %", 0), ("cosine 2 x 100", "alignment 2, cosine x 100", 3))


def figures(results_dir: Path, context: RunContext) -> Iterable[Figure]:
    """The published figure, if any of its points was run at the context's scale."""
    lines = lines_of(BOTTLENECK, results_dir, context.scale)
    if not lines:
        return
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
    yield Figure(title="DFA through a bottleneck", caption=caption, png=png(figure))


def measured(lines: list[dict[str, Any]], column: str, init: str) -> dict[int, float]:
    """Our mean by b, where there is one."""
    cells = [c for c in BOTTLENECK.cells if c.column == column and c.preset.endswith(f"_{init}_dfa")]
    means = {int(cell.preset.split("_")[1]): summarise(BOTTLENECK, cell, lines).mean for cell in cells}
    return {size: mean for size, mean in means.items() if mean is not None}
