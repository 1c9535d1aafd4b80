"""What the report says of the published tables, as data: each at a glance, then whole, full runs before small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.methods import label
from harness.report import Figure, ReportTable
from harness.tables import Table
from harness.tables.aggregate import lines_of, summarise, with_numbers
from reproduce.layout import arranged, legend
from reproduce.render import Lines, remarks
from reproduce.report.summary import HEADLINE, compare, headline, same_places
from reproduce.runs import Runs
from reproduce.small import best_of, data_of, small, telling


@dataclass(frozen=True)
class View:
    """A table and its picture."""

    table: ReportTable
    figure: Figure


@dataclass(frozen=True)
class Part:
    """A published table in the report, folded below its title."""

    name: str
    title: str
    headline: str  # the methods in one sentence
    whole: View | None  # runs at the published scale
    little: View | None  # small runs, on embedded data
    left_out: str  # which small runs are not shown, and why
    notes: tuple[str, ...]


def part(table: Table, results: Path, folder: Path | None) -> Part:
    """What there is of a table.

    Args:
        table: The published table.
        results: Folder of the runs at the published scale.
        folder: Folder of the small runs; None if there are none.
    """
    published = lines_of(table, results, "paper")
    shown = with_numbers(table, published)
    whole = View(_table(shown, published), _dots(shown, published)) if shown.cells else None
    said = headline(table, published) if published else f"no run yet: python -m reproduce {table.name}"
    little, left_out = _little(table, published, folder)
    return Part(table.name, table.title, said, whole, little, left_out, tuple(remarks(table, published)))


def your_parts(tables: Sequence[Table], out: Path, label: str) -> list[Part]:
    """Tables with the runs of the user's own folder beside ours: the rows and columns in which there are any."""
    return [_yours(table, *Runs.of(table, out, label)) for table in tables]


def _yours(table: Table, ours: Lines, yours: Lines) -> Part:
    places = {(cell.row, cell.column) for cell in table.cells if summarise(table, cell, yours).n}
    shown = replace(table, cells=tuple(cell for cell in table.cells if (cell.row, cell.column) in places))
    view = View(
        replace(_table(shown, ours, yours), title="Yours and ours"), replace(_dots(shown, yours), title="Yours")
    )
    notes = tuple(remarks(shown, ours, yours))
    return Part(f"yours-{table.name}", table.title, headline(table, yours), view, None, "", notes)


def _little(table: Table, published: Lines, folder: Path | None) -> tuple[View | None, str]:
    """The small runs that say something, and a sentence on the others."""
    whole = small(table)
    lines = lines_of(whole, folder, "quick") if folder else []
    if not lines:
        return None, ""
    rest = telling(whole, lines, table, published)
    missing = len({cell.row for cell in whole.cells} - {cell.row for cell in rest.cells})
    why = (
        f"{missing} row{'s' if missing > 1 else ''} of small runs left out: so short, or on other data, these settings"
    )
    said = f"{why} rank the methods otherwise than the full runs." if missing else ""
    if not rest.cells:
        return None, said
    view = _table(rest, lines)
    caption = f"{view.caption}. To see that everything works: too short to compare methods."
    title = f"Small runs on {data_of(table)}"
    return View(replace(view, title=title, caption=caption, name=""), replace(_dots(rest, lines), title=title)), said


def overview(tables: Sequence[Table], results: Path) -> ReportTable:
    """Backpropagation, DFA and shallow training in every table that has them, over the cells that they share.

    Of a table with several metrics the first counts. Runs shorter than published are left out, as are tables of several
    unlike quantities and those of our own that tell how settings were chosen.
    """
    shown = [t for t in tables if "," not in t.unit and (not t.is_ours or t.source.endswith("has no such table"))]
    pairs = [(_first_metric(table), lines_of(table, results, "paper")) for table in shown]
    rows = [row for group in _akin([pair for pair in pairs if pair[1]]) if (row := _glance(group))]
    header = ("", *(label(method) for method in HEADLINE), "unit", "mean over")
    return ReportTable("Published tables at a glance", header, tuple(rows), "arrows say which way is better")


def _glance(group: Sequence[tuple[Table, Lines]]) -> tuple[str, ...]:
    """A row of the overview; empty if there is nothing to compare."""
    table, lines = group[0]
    found = compare(group, HEADLINE)
    if found is not None and found.means.keys() == set(HEADLINE):
        means, rows = found.means, found.rows[0] if len(found.rows) == 1 else f"{len(found.rows)} models"
        where = f"{rows} on {', '.join(found.columns)}"
    else:
        means = _best_rows(table, lines)
        where = f"the best row of each on {table.cells[0].column}" if table.cells else ""
    if not set(HEADLINE) <= means.keys():
        return ()
    unit = f"{table.unit.partition(';')[0]} {'↑' if means['bp'] > means['shallow'] else '↓'}"
    return (table.title, *(f"{means[method]:.{table.decimals}f}" for method in HEADLINE), unit, where)


def _best_rows(table: Table, lines: Lines) -> dict[str, float]:
    """Of a table whose rows are settings, the best number of each method in the first column."""
    found: dict[str, list[float]] = {}
    for cell in table.cells:
        mean = summarise(table, cell, lines).mean
        if mean is not None and cell.column == table.cells[0].column:
            found.setdefault(cell.method, []).append(mean)
    return best_of(found) if "shallow" in found else {}


def _first_metric(table: Table) -> Table:
    """The cells of the first metric, at the published length."""
    metric = table.cells[0].metric if table.cells else ""
    return replace(table, cells=tuple(cell for cell in table.cells if cell.metric == metric and not cell.shortened))


def _akin(pairs: Sequence[tuple[Table, Lines]]) -> list[list[tuple[Table, Lines]]]:
    """Tables about the same rows and columns together, such as those of shallow training with those of the others."""
    groups: list[list[tuple[Table, Lines]]] = []
    for table, lines in pairs:
        group = next((group for group in groups if any(same_places(table, other) for other, _ in group)), None)
        if group is None:
            groups.append(group := [])
        group.append((table, lines))
    return groups


def what_was_run(tables: Sequence[Table], results: Path, folder: Path | None) -> ReportTable:
    """What there is of every table: cells with a result at the published scale, runs, and small runs."""
    rows = []
    for table in tables:
        lines = lines_of(table, results, "paper")
        cells = sum(summarise(table, cell, lines).n > 0 for cell in table.cells)
        little = len(lines_of(small(table), folder, "quick")) if folder else 0
        rows.append((table.title, table.task, f"{cells} of {len(table.cells)}", str(len(lines)), str(little)))
    header = ("", "task", "cells run at full size", "runs", "small runs")
    return ReportTable("What was run", header, tuple(rows))


def _table(table: Table, lines: Lines, yours: Lines = ()) -> ReportTable:
    header, rows = arranged(table, lines, yours)
    return ReportTable("Full runs", header, tuple(rows), legend(table, lines, yours), table.name)


def _dots(table: Table, lines: Lines) -> Figure:
    from reproduce.report.dots import dots_png

    caption = "Mean and one standard deviation over seeds."
    if table.is_compared:
        caption += " Diamonds: published."
    if not table.small and any(cell.shortened for cell in table.cells):
        caption += " Pale: trained for less than published; the table says how much."
    return Figure("Full runs", caption, dots_png(table, lines))
