"""From the runs of a table to its numbers: which runs are wanted, which are there, mean and spread of each cell.

Spread is the sample standard deviation over seeds (divisor n - 1). A run whose metric is not finite counts as failed:
it is shown, and left out of the mean.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.methods import named
from harness.tables import results
from harness.tables.table import Cell, Table


@dataclass(frozen=True)
class Summary:
    """The statistics of the runs of one cell, in the table's unit."""

    mean: float | None  # None: no finite run
    std: float | None  # None: fewer than two
    n: int  # finite runs
    failed: int = 0  # runs whose metric is not finite


RunKey = tuple[str, str, str, int]  # preset, dataset, method, seed


def quick(table: Table) -> Table:
    """The table at small scale: every cell on the task's embedded data, columns that differ by data set only as one.

    Published numbers are left out: they belong to other data.
    """
    several = len({cell.metric for cell in table.cells}) > 1
    cells: dict[tuple[str, str, str], Cell] = {}
    for cell in table.cells:
        column = f"synthetic, {cell.metric}" if several else "synthetic"
        small = replace(cell, column=column, dataset="synthetic", published=None, source="")
        cells.setdefault((cell.row, cell.method, cell.metric), small)
    return replace(table, cells=tuple(cells.values()), small=True)


def only(table: Table, datasets: Sequence[str]) -> Table:
    """The table with the cells on `datasets` alone; all of them if none is given."""
    return replace(table, cells=tuple(cell for cell in table.cells if not datasets or cell.dataset in datasets))


def with_methods(table: Table, methods: Sequence[str]) -> Table:
    """The table with the rows of `methods` alone; a method that it lacks has the settings of DFA. All if none is given.

    Raises:
        UserError: no method has that name.
    """
    if not methods:
        return table
    wanted = [named(method) for method in methods]
    there = {(cell.row, cell.column, cell.metric, cell.method): cell for cell in table.cells}
    cells: list[Cell] = []
    for cell in table.cells:
        if cell.method == "dfa":
            for method in wanted:
                mine = there.get((cell.row, cell.column, cell.metric, str(method)))
                cells.append(mine or _by_another(cell, method))
        elif cell.method in wanted and (cell.row, cell.column, cell.metric, "dfa") not in there:
            cells.append(cell)
    return replace(table, cells=tuple(cells))


def at_own_length(table: Table) -> Table:
    """The table with cells without a length of their own: for runs whose length is given by the command."""
    return replace(table, cells=tuple(replace(cell, length={}) for cell in table.cells))


def _by_another(cell: Cell, method: str) -> Cell:
    """The cell with its preset trained by `method`."""
    preset = None if cell.preset is None else replace(cell.preset, method=method)
    key = f"{cell.key}+{method}"
    return replace(cell, method=str(method), key=key, preset=preset, published=None, source="")


def with_numbers(table: Table, lines: Sequence[dict[str, Any]]) -> Table:
    """The table without the columns that hold no number at all, neither published nor ours."""
    filled = {cell.column for cell in table.cells if cell.published is not None or summarise(table, cell, lines).n > 0}
    return replace(table, cells=tuple(cell for cell in table.cells if cell.column in filled))


def check_datasets(tables: Sequence[Table], datasets: Sequence[str]) -> None:
    """Raise `UserError` for a data set that none of `tables` has."""
    known = list(dict.fromkeys(cell.dataset for table in tables for cell in table.cells))
    for name in datasets:
        if name not in known:
            of = ", ".join(table.name for table in tables)
            raise UserError(f"--datasets {name}: no such data set in {of}. There are: {', '.join(known)}.")


def wanted_runs(table: Table, seeds: int) -> dict[RunKey, Cell]:
    """The runs that the table needs; a run that answers several cells (two metrics of one training) is listed once."""
    return {
        (cell.key, cell.dataset, cell.method, seed): cell for seed in range(seeds) for cell in reversed(table.cells)
    }


def key_of(line: dict[str, Any]) -> RunKey:
    """The run that a line of a results file is about."""
    return line["preset"], line["dataset"], line["method"], line["seed"]


def lines_of(table: Table, folder: Path, scale: str) -> list[dict[str, Any]]:
    """The runs of `table` filed under `scale` below the results folder, one line a run, the newest where there are two.

    Runs of cells that the table does not have (any more) are left out.
    """
    known = {(cell.key, cell.dataset, cell.method) for cell in table.cells}
    lines = {key_of(line): line for line in results.read(table.path(folder)) if line.get("scale") == scale}
    return [line for key, line in lines.items() if key[:3] in known]


def summarise(table: Table, cell: Cell, lines: Iterable[dict[str, Any]]) -> Summary:
    """Mean and spread of `cell` over the lines that belong to it; the last line counts where a run has two."""
    wanted = (cell.key, cell.dataset, cell.method)
    runs = {key_of(line): line["result"]["metrics"].get(cell.metric) for line in lines if key_of(line)[:3] == wanted}
    finite = [value * table.scale for value in runs.values() if value is not None and math.isfinite(value)]
    mean = statistics.fmean(finite) if finite else None
    std = statistics.stdev(finite) if len(finite) > 1 else None
    return Summary(mean, std, len(finite), len(runs) - len(finite))
