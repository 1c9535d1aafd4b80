"""Quality kept against cost: a point a rule, the median over the columns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from scipy.optimize import isotonic_regression

from harness.methods import colour, label
from harness.report.figures import canvas, png
from reproduce.scoreboard.columns import Column
from reproduce.scoreboard.page import Scores

WIDTH, HEIGHT = 7.5, 4.5  # inches
LINE = 0.055  # of the height: what a label needs
LEFT, RIGHT, BELOW, ABOVE = 0.09, 0.81, 0.12, 0.97  # of the picture: where the axes are; to their right the labels


def points(columns: Sequence[Column], methods: Sequence[str], found: Scores) -> dict[str, tuple[float, float]]:
    """By rule: time of a step as a ratio to backpropagation's, and share of the way; medians over the columns with it.

    Steps are not timed on every column for every rule; their ratios vary little from column to column, shares a lot.
    """
    medians = {}
    for method in methods:
        cells = [found[column.name][method] for column in columns]
        ratios = [cell.step_ratio for cell in cells if cell.step_ratio is not None]
        shares = [cell.share for cell in cells if cell.share is not None]
        if ratios and shares:
            medians[method] = statistics.median(ratios), statistics.median(shares)
    return medians


def picture(columns: Sequence[Column], methods: Sequence[str], found: Scores) -> bytes:
    """The picture as a PNG. Every point has its label at the right margin, in the order of their heights."""
    figure = canvas(WIDTH, HEIGHT)
    figure.set_layout_engine("none")
    axes = figure.add_axes((LEFT, BELOW, RIGHT - LEFT, ABOVE - BELOW))
    places = sorted(points(columns, methods, found).items(), key=lambda item: item[1][1])
    for method, (ratio, share) in places:
        axes.plot(ratio, 100 * share, "o", color=colour(method), markersize=7)
    axes.axhline(0, color="#999999", linewidth=0.8)
    axes.axhline(100, color="#444444", linewidth=0.8)
    axes.set(
        xlabel="time of a step, as a ratio to backpropagation (median over columns)",
        ylabel="way from shallow training to backpropagation, %",
    )
    lowest, highest = axes.get_ylim()
    heights = [(100 * share - lowest) / (highest - lowest) for _, (_, share) in places]
    for (method, (ratio, share)), height in zip(places, apart(heights, LINE), strict=True):
        axes.annotate(
            label(method),
            (ratio, 100 * share),
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize="small",
            color=colour(method),
            arrowprops={"arrowstyle": "-", "color": colour(method), "linewidth": 0.6, "relpos": (0, 0.5)},
        )
    return png(figure, whole=True)


def apart(heights: Sequence[float], least: float) -> list[float]:
    """Heights at least so far apart, in the same order, and in the sense of least squares as near as that allows.

    They stay between 0 and 1, closer together if they are many.

    Example:
        >>> [round(height, 3) for height in apart([0.1, 0.5, 0.5], 0.2)]
        [0.1, 0.4, 0.6]
    """
    if not heights:
        return []
    steps = min(least, 1.0 / len(heights)) * np.arange(len(heights))
    free = isotonic_regression(np.asarray(heights) - steps).x
    return (np.clip(free, 0.0, 1.0 - steps[-1]) + steps).tolist()
