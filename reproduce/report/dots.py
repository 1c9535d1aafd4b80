"""A published table at a glance: dots for our numbers, diamonds for the paper's."""

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.methods import colour as colour_of
from harness.methods import label as label_of
from harness.report.figures import WIDEST, canvas, png
from harness.tables import Table
from harness.tables.aggregate import Summary, summarise

PALE = 0.35  # opacity of a run that is shorter than published
LEGEND = 1.25  # inches that an entry of the legend takes

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def dots_png(table: Table, lines: Sequence[dict[str, Any]]) -> bytes:
    """A published table at a glance: a panel per column, ours as dots with their spread, the paper's as diamonds."""
    columns = list(dict.fromkeys(cell.column for cell in table.cells))
    rows = list(dict.fromkeys(cell.row for cell in table.cells))
    figure = canvas(min(WIDEST, max(5.0, 2.2 + 2.3 * len(columns))), 1.3 + 0.42 * len(rows))
    for index, column in enumerate(columns, start=1):
        axes = figure.add_subplot(1, len(columns), index)
        _draw_column(axes, table, column, rows, lines)
        axes.locator_params(axis="x", nbins=4 if len(columns) < 5 else 2)
        axes.set_title(fill(column, max(8, 64 // len(columns))), fontsize="medium")
        axes.set(xlabel=table.unit, ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), rows if index == 1 else [""] * len(rows))
    _legend(figure, table)
    return png(figure)


def _draw_column(axes: Any, table: Table, column: str, rows: Sequence[str], lines: Sequence[dict[str, Any]]) -> None:
    methods = list(dict.fromkeys(cell.method for cell in table.cells))
    offsets = np.linspace(-0.22, 0.22, len(methods)) if len(methods) > 1 else [0.0]
    for cell in (cell for cell in table.cells if cell.column == column):
        height = rows.index(cell.row) + offsets[methods.index(cell.method)]
        colour = colour_of(cell.method)
        ours: Summary = summarise(table, cell, lines)
        if cell.published is not None:
            axes.plot(cell.published, height, "D", color=colour, markersize=4.5, fillstyle="none")
        if ours.mean is not None:
            alpha = PALE if cell.shortened and not table.small else 1.0
            bar = {"fmt": "o", "markersize": 5, "capsize": 2, "color": colour, "alpha": alpha}
            axes.errorbar(ours.mean, height, xerr=ours.std or 0, **bar)


def _legend(figure: "Canvas", table: Table) -> None:
    from matplotlib.lines import Line2D

    methods = dict.fromkeys(cell.method for cell in table.cells)
    marks = [Line2D([], [], ls="", marker="o", color=colour_of(m), label=label_of(m)) for m in methods]
    if any(cell.published is not None for cell in table.cells):
        marks.append(Line2D([], [], ls="", marker="D", color="black", fillstyle="none", label="published"))
    fitting = max(2, int(figure.get_figwidth() / LEGEND))
    figure.legend(handles=marks, loc="outside lower center", ncols=min(len(marks), fitting), frameon=False)
