"""Quality kept against cost: a point a rule, the median over the columns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from harness.methods import colour, label
from harness.report.figures import canvas, png
from reproduce.scoreboard.columns import Column
from reproduce.scoreboard.page import Scores


def points(columns: Sequence[Column], methods: Sequence[str], found: Scores) -> dict[str, tuple[float, float, int]]:
    """By rule: time of a step as a ratio to backpropagation's, share of the way, and the columns that have both."""
    medians = {}
    for method in methods:
        cells = [found[column.name][method] for column in columns]
        pairs = [(cell.step_ratio, cell.share) for cell in cells if None not in (cell.step_ratio, cell.share)]
        if pairs:
            ratios, shares = zip(*pairs, strict=True)
            medians[method] = statistics.median(ratios), statistics.median(shares), len(pairs)
    return medians


def picture(columns: Sequence[Column], methods: Sequence[str], found: Scores) -> bytes:
    """The picture as a PNG."""
    figure = canvas(7.5, 4.5)
    axes = figure.add_subplot()
    for method, (ratio, share, _) in points(columns, methods, found).items():
        axes.plot(ratio, 100 * share, "o", color=colour(method), markersize=7)
        axes.annotate(label(method), (ratio, 100 * share), xytext=(6, 3), textcoords="offset points", fontsize="small")
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.axhline(100, color="#444444", linewidth=0.8)
    axes.set(
        xlabel="time of a step, as a ratio to backpropagation (median over columns)",
        ylabel="way from shallow training to backpropagation, %",
    )
    return png(figure)
