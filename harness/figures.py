"""Pictures for the report, as PNG bytes: one colour per method in every figure, which its rule says.

Colours of the library's rules: Okabe and Ito's palette, https://jfly.uni-koeln.de/color/, which colour-blind readers
can tell apart; backpropagation, the reference, is dark grey.
"""

import io
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.aggregate import Summary, summarise
from harness.methods import colour as colour_of
from harness.methods import label as label_of
from harness.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

WIDEST = 9.8  # inches: what the page has room for
DPI = 200  # twice the 100 dots per inch at which a browser shows it


def band(axes: Any, runs: Sequence[Sequence[float | None]], label: str, colour: str, x: Any = None) -> None:
    """Curves of several runs: their mean, and a band of one standard deviation.

    Args:
        axes: Where to draw.
        runs: Values per step of each run; None is a gap. They are cut to the shortest.
        label: For the legend.
        colour: As matplotlib takes it; of a method `harness.methods.colour`.
        x: Positions of the values; 1, 2, ... if left out.
    """
    length = min(len(run) for run in runs)
    values = np.array([[np.nan if value is None else value for value in run[:length]] for run in runs], float)
    position = np.arange(1, length + 1) if x is None else np.asarray(x[:length], float)
    mean = values.mean(axis=0)
    axes.plot(position, mean, color=colour, label=label, linewidth=1.5)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        axes.fill_between(position, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)


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
            axes.errorbar(ours.mean, height, xerr=ours.std or 0, fmt="o", color=colour, markersize=5, capsize=2)


def _legend(figure: "Canvas", table: Table) -> None:
    from matplotlib.lines import Line2D

    methods = dict.fromkeys(cell.method for cell in table.cells)
    marks = [Line2D([], [], ls="", marker="o", color=colour_of(m), label=label_of(m)) for m in methods]
    if any(cell.published is not None for cell in table.cells):
        marks.append(Line2D([], [], ls="", marker="D", color="black", fillstyle="none", label="published"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)


def canvas(width: float, height: float) -> "Canvas":
    """An empty figure of `width` by `height` inches, in the report's look, independent of the user's matplotlib."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), layout="constrained", facecolor="white")


def png(figure: "Canvas") -> bytes:
    """The figure as a PNG, at twice the size at which the page shows it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
