"""What the tables say in one glance: methods averaged over the cells that all of them have, and what was run so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.methods import label
from harness.tables import Table
from harness.tables.aggregate import summarise

HEADLINE = ("bp", "dfa", "shallow")
Lines = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Means of some methods over the same cells, in the unit of their tables."""

    title: str
    means: dict[str, float]  # by method
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: int  # averaged over
    unit: str
    decimals: int

    def text(self, method: str) -> str:
        """The mean of `method`; the title says in what, unless it is a percentage."""
        return f"{self.means[method]:.{self.decimals}f}{'%' if self.unit == '%' else ''}"


def compare(tables: Sequence[tuple[Table, Lines]], methods: Sequence[str]) -> Comparison | None:
    """Average `methods` over the cells (row and column) that each of them has a number for, in any of `tables`.

    Returns None if less than two methods have numbers, or nothing is common to those that have, or the tables hold
    more than one metric: a mean of different things says nothing.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}
    for table, lines in tables:
        for cell in table.cells:
            mean = summarise(table, cell, lines).mean
            if mean is not None and cell.method in methods:
                found.setdefault((cell.row, cell.column), {}).setdefault(cell.method, mean)
    there = [method for method in methods if any(method in means for means in found.values())]
    common = {place: means for place, means in found.items() if len(means) == len(there)}
    if len(there) < 2 or not common or len({cell.metric for table, _ in tables for cell in table.cells}) > 1:
        return None
    rows, columns = (tuple(dict.fromkeys(names)) for names in zip(*common, strict=True))
    first = tables[0][0]
    means = {method: sum(each[method] for each in common.values()) / len(common) for method in there}
    return Comparison(first.title, means, rows, columns, len(common), first.unit, first.decimals)


def same_places(one: Table, other: Table) -> bool:
    """Whether two tables of a task have a row and column in common, measured in the same."""
    first, second = ({(cell.row, cell.column, cell.metric) for cell in table.cells} for table in (one, other))
    return one.task == other.task and not first.isdisjoint(second)


def headline(table: Table, lines: Lines) -> str:
    """One sentence that compares the methods of a table; empty if there is nothing to compare."""
    methods = list(dict.fromkeys(cell.method for cell in table.cells))
    found = compare([(table, lines)], methods)
    if found is None or len(found.means) < len(methods):
        return ""
    numbers = ", ".join(f"{label(method)} {found.text(method)}" for method in found.means)
    return f"{numbers}, averaged over {found.cells} cells." if found.cells > 1 else f"{numbers}."
