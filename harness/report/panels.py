"""Figures with one panel a row of a table and one curve a method, drawn from the lines of its runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.methods import colour, label
from harness.report.figures import band, canvas
from harness.tables import results

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Lines = list[dict[str, Any]]


def lines_with_curves(path: Path, scale: str) -> Lines:
    """The runs filed under `scale` in a table's file that hold curves."""
    return [line for line in results.read(path) if line.get("scale") == scale and line["result"].get("curves")]


def grouped(lines: Lines, key: str) -> dict[str, Lines]:
    """The lines by one of their entries, in the order in which they are found."""
    groups: dict[str, Lines] = defaultdict(list)
    for line in lines:
        groups[line[key]].append(line)
    return dict(groups)


def chunks(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    """`items` in order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def side_by_side(count: int, width: float = 2.6, height: float = 3.0, sharey: bool = False) -> tuple[Canvas, list[Any]]:
    """A figure of `count` panels in a row, each `width` inches wide; epochs and steps are whole numbers."""
    from matplotlib.ticker import MaxNLocator

    figure = canvas(width * count + 0.7, height)
    panels = list(figure.subplots(1, count, sharey=sharey, squeeze=False)[0])
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure, panels


def draw_methods(axes: Any, lines: Lines, curve: str, factor: float = 1.0, x: str | None = None) -> None:
    """One curve of the runs by method: mean and spread over seeds.

    Args:
        axes: The panel.
        lines: The runs of one row.
        curve: Its name in the runs' curves; runs without it are left out.
        factor: What the values are multiplied by, such as 100 for per cent.
        x: The curve that holds the positions; 1, 2, ... if None.
    """
    for method, runs in grouped(lines, "method").items():
        curves = [run["result"]["curves"] for run in runs if curve in run["result"]["curves"]]
        if curves:
            values = [[None if value is None else factor * value for value in found[curve]] for found in curves]
            positions = None if x is None else min((found[x] for found in curves), key=len)
            band(axes, values, label(method), colour(method), x=positions)


def legend(figure: Any, panels: Iterable[Any]) -> None:
    """One legend below all panels, with every curve's label once."""
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found, loc="outside lower center", ncols=max(1, len(found)), frameon=False)
