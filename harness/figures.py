"""Pictures for the report, as PNG bytes: one colour per method in every figure, told apart by colour-blind readers too.

Colours: Okabe and Ito's palette, https://jfly.uni-koeln.de/color/; backpropagation, the reference, is dark grey.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.aggregate import Summary, summarise
from harness.render import METHODS
from harness.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

COLOURS = {
    "bp": "#444444",
    "dfa": "#E69F00",
    "shallow": "#56B4E9",
    "sdfa": "#D55E00",
    "tdfa": "#CC79A7",
    "drtp": "#009E73",
    "fa": "#0072B2",
    "usf": "#8C6BB1",
    "brsf": "#A6761D",
    "frsf": "#666633",
}
OTHER = "#999999"
WIDEST = 9.8  # inches: what the page has room for
DPI = 200  # twice the 100 dots per inch at which a browser shows it


def curves_png(
    runs: Mapping[str, Sequence[Sequence[float | None]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    x: Sequence[float] | None = None,
    log: bool = False,
) -> bytes:
    """Training curves: per method the mean over its runs, and a band of one standard deviation.

    Args:
        runs: Method to runs, a run being its values per step; None is a gap. A method is cut to its shortest run.
        xlabel: What is on the horizontal axis, with its unit.
        ylabel: What is on the vertical axis, with its unit.
        title: Shown above.
        x: Positions of the values; 1, 2, ... if left out.
        log: A logarithmic vertical axis.
    """
    figure = _canvas(6.0, 3.6)
    axes = figure.add_subplot()
    for method, values in runs.items():
        if not values:
            continue
        length = min(len(run) for run in values)
        table = np.array([[np.nan if value is None else value for value in run[:length]] for run in values], float)
        position = np.arange(1, length + 1) if x is None else np.asarray(x[:length], float)
        mean = table.mean(axis=0)
        colour = COLOURS.get(method, OTHER)
        axes.plot(position, mean, color=colour, label=METHODS.get(method, method), linewidth=1.8)
        if len(table) > 1:
            std = table.std(axis=0, ddof=1)
            axes.fill_between(position, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, yscale="log" if log else "linear")
    axes.legend(frameon=False)
    return _png(figure)


def curves_of(lines: Sequence[dict[str, Any]], name: str, row: str, column: str) -> dict[str, list[list[float | None]]]:
    """What `curves_png` draws: the curve called `name` of every run in a cell of a results file, by method."""
    runs: dict[str, list[list[float | None]]] = {}
    for line in lines:
        curve = (line["result"].get("curves") or {}).get(name)
        if curve and (line["row"], line["column"]) == (row, column):
            runs.setdefault(line["method"], []).append(curve)
    return runs


def scatter_png(panels: Mapping[str, tuple[Any, Any]], *, width: float = 3.2) -> bytes:
    """Embeddings side by side, coloured by class.

    Args:
        panels: Title to points `[n, 2]` and class ids `[n]` (at most 10 classes have a colour of their own).
        width: Of one panel, in inches.
    """
    figure = _canvas(width * len(panels), width + 0.3)
    for index, (title, (points, labels)) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), index)
        across, up = np.asarray(points).T
        axes.scatter(across, up, c=np.asarray(labels) % 10, cmap="tab10", vmin=0, vmax=9, s=3, lw=0)
        axes.set(title=title, xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
    return _png(figure)


def dots_png(table: Table, lines: Sequence[dict[str, Any]]) -> bytes:
    """A published table at a glance: a panel per column, ours as dots with their spread, the paper's as diamonds."""
    columns = list(dict.fromkeys(cell.column for cell in table.cells))
    rows = list(dict.fromkeys(cell.row for cell in table.cells))
    figure = _canvas(min(WIDEST, max(5.0, 2.2 + 2.3 * len(columns))), 1.3 + 0.42 * len(rows))
    for index, column in enumerate(columns, start=1):
        axes = figure.add_subplot(1, len(columns), index)
        _draw_column(axes, table, column, rows, lines)
        axes.locator_params(axis="x", nbins=4)
        axes.set(title=column, xlabel=table.unit, ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), rows if index == 1 else [""] * len(rows))
    _legend(figure, table)
    return _png(figure)


def _draw_column(axes: Any, table: Table, column: str, rows: Sequence[str], lines: Sequence[dict[str, Any]]) -> None:
    methods = list(dict.fromkeys(cell.method for cell in table.cells))
    offsets = np.linspace(-0.22, 0.22, len(methods)) if len(methods) > 1 else [0.0]
    for cell in (cell for cell in table.cells if cell.column == column):
        height = rows.index(cell.row) + offsets[methods.index(cell.method)]
        colour = COLOURS.get(cell.method, OTHER)
        ours: Summary = summarise(table, cell, lines)
        if cell.published is not None:
            axes.plot(cell.published, height, "D", color=colour, markersize=4.5, fillstyle="none")
        if ours.mean is not None:
            axes.errorbar(ours.mean, height, xerr=ours.std or 0, fmt="o", color=colour, markersize=5, capsize=2)


def _legend(figure: "Canvas", table: Table) -> None:
    from matplotlib.lines import Line2D

    methods = dict.fromkeys(cell.method for cell in table.cells)
    marks = [Line2D([], [], ls="", marker="o", color=COLOURS.get(m, OTHER), label=METHODS.get(m, m)) for m in methods]
    if any(cell.published is not None for cell in table.cells):
        marks.append(Line2D([], [], ls="", marker="D", color="black", fillstyle="none", label="published"))
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)


def _canvas(width: float, height: float) -> "Canvas":
    """An empty figure of `width` by `height` inches, in the report's look, independent of the user's matplotlib."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), layout="constrained", facecolor="white")


def _png(figure: "Canvas") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
