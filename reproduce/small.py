"""The small runs of a table under their own names: the data they are on, and which of them say something.

They are there to see that everything works. Settings of a published table are made for its data and its length, and
some teach a network nothing in a few seconds on other data. Rows in which the methods come out in another order than at
full length are left out, since they would say of a method what is true of the shortening alone.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.tables import Cell, Table
from harness.tables.aggregate import quick, summarise

DATA = {
    "graphs": "a generated graph",
    "recsys": "a generated log",
    "nlp": "Python's documentation",
    "nerf": "generated solids",
    "vision": "8 x 8 digits",
}
GENERATED = ("drtp-regression", "drtp-classification", "linear-map")  # need no files at any scale
NAMES = re.compile(r"\b(MNIST|CIFAR-10|Cora|CiteSeer|PubMed)\b")
Lines = Sequence[dict[str, Any]]


def data_of(table: Table) -> str:
    """What the small runs of a table are on."""
    if all(cell.dataset in GENERATED for cell in table.cells):
        return "generated data"
    return DATA.get(table.task, "embedded data")


def small(table: Table) -> Table:
    """The table at small scale, each run once, and named by what it is on.

    Rows that differ by their data alone, such as scenes, are one row on embedded data. Notes speak of the runs at full
    length, and are left out.
    """
    data = data_of(table)
    title = NAMES.sub(data, table.title)
    cells: dict[tuple[str, str, str], Cell] = {}
    for cell in quick(table).cells:
        metric = cell.column.partition(", ")[2].replace("_", " ")
        named = replace(cell, column=f"{data}, {metric}" if metric else data)
        cells.setdefault((cell.key, cell.method, cell.metric), named)
    return replace(quick(table), title=title[0].upper() + title[1:], cells=tuple(cells.values()), notes=())


def telling(little: Table, lines: Lines, whole: Table, published: Lines) -> Table:
    """The small table without the rows that say the opposite of the runs at full length.

    Args:
        little: The table at small scale.
        lines: Its runs.
        whole: The table at full length.
        published: Its runs.

    Returns:
        The rest, perhaps without any cell.
    """
    wrong = {
        (row, metric)
        for (row, metric), order in _orders(little, lines).items()
        if (known := _orders(whole, published).get((row, metric)))
        and any(known.get(m, s) * s < 0 for m, s in order.items())
    }
    return replace(
        little, cells=tuple(c for c in little.cells if (c.row, c.metric) not in wrong and ("", c.metric) not in wrong)
    )


def _orders(table: Table, lines: Lines) -> dict[tuple[str, str], dict[str, float]]:
    """How far each method is above shallow training, by row and metric; under the row "" for the best of all rows.

    The latter where no row has both, as in a table whose rows are settings. What is best is what is nearest to
    backpropagation.
    """
    means: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell in table.cells:
        mean = summarise(table, cell, lines).mean
        if mean is not None:
            for row in (cell.row, ""):
                means.setdefault((row, cell.metric), {}).setdefault(cell.method, []).append(mean)
    apart = {(row, metric) for (row, metric), found in means.items() if row and {"shallow"} < found.keys()}
    found: dict[tuple[str, str], dict[str, float]] = {}
    for (row, metric), by_method in means.items():
        whole = row == ""
        if "shallow" not in by_method or whole == any(other == metric for _, other in apart):
            continue
        means_of = {method: statistics.fmean(values) for method, values in by_method.items()}
        best = best_of(by_method) if whole else means_of
        found[row, metric] = {method: value - best["shallow"] for method, value in best.items() if method != "shallow"}
    return found


def best_of(by_method: dict[str, list[float]]) -> dict[str, float]:
    """The best value of each method: the largest where backpropagation's mean is above shallow training's."""
    reference = by_method.get("bp", by_method["shallow"])
    up = statistics.fmean(reference) >= statistics.fmean(by_method["shallow"])
    return {method: max(values) if up else min(values) for method, values in by_method.items()}
