"""How a table is laid out to be read: methods side by side, since they are what is compared.

    one line a row       | | Cora, BP | Cora, DFA | CiteSeer, BP | ...    where that is not too wide
    one line a cell      | | | BP | DFA | Shallow |                       one for every row and column of the table
    one line a method    | | method | Cora | CiteSeer |                   where no row has two methods

Published numbers stand in a line of their own, below ours; so do yours, above ours, where there are any. A number over
as many seeds as most does not say how many.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from harness.errors import UserError
from harness.methods import label
from harness.tables import Cell, Table
from harness.tables.aggregate import summarise
from reproduce.render import Lines, by_owner, grid, number, published, remarks

WIDEST = 8  # numbers in one line of "one line a row"
Row = tuple[str, ...]
Group = tuple[Row, list[Cell | None]]  # names of a line, and its cells from left to right


def arranged(table: Table, lines: Lines, yours: Lines = ()) -> tuple[Row, list[Row]]:
    """Header and rows of `table` with the numbers of `lines` and of `yours`, methods side by side."""
    places = {(cell.row, cell.column) for cell in table.cells}
    if len(places) == len({(cell.row, cell.column, cell.method) for cell in table.cells}):
        return grid(table, lines, yours)
    header, groups = _groups(table)
    runs = by_owner(lines, yours)
    named = len(groups[0][0])
    rows: list[Row] = []
    for names, cells in groups:
        again = bool(rows) and named > 1 and _row_name(rows, len(rows)) == names[0]
        rows += _lines_of(table, ("", *names[1:]) if again else names, cells, runs)
    said = table.is_compared or len(runs) > 1
    return (*[""] * (named + said), *header), rows


def markdown(table: Table, lines: Lines, yours: Lines = ()) -> str:
    """`table` as Markdown: its title, what stands in it, and what a reader must know to trust it."""
    notes = [f"- {note}" for note in remarks(table, lines, yours)]
    title = f"**{table.title}** ({legend(table, lines, yours)})"
    return "\n".join([title, "", *_piped(table, lines, yours), "", *notes]) + "\n"


def excerpt(table: Table, lines: Lines, patterns: Sequence[str], link: str) -> str:
    """Some rows and columns of `table` as Markdown, see `selected`, and where the rest is.

    Args:
        table: The whole table.
        lines: Its runs.
        patterns: Of the rows and columns that are shown.
        link: To the whole table, from the file that shows the excerpt.
    """
    part = selected(table, patterns)
    rest = f"[The whole table, its notes and sources]({link})"
    return "\n".join([f"**{table.title}** ({legend(part, lines)})", "", *_piped(part, lines), "", f"{rest}."]) + "\n"


def piped(header: Sequence[str], rows: Iterable[Sequence[str]], named: int) -> list[str]:
    """The lines of a table in Markdown, whose first `named` columns hold names and the others numbers."""
    rule = [" --- "] * named + [" ---: "] * (len(header) - named)
    return [
        "| " + " | ".join(header) + " |",
        "|" + "|".join(rule) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _piped(table: Table, lines: Lines, yours: Lines = ()) -> list[str]:
    header, rows = arranged(table, lines, yours)
    return piped(header, rows, named_columns(header))


def named_columns(header: Sequence[str]) -> int:
    """How many columns hold names, not numbers."""
    return sum(not head or head == "method" for head in header)


def selected(table: Table, patterns: Sequence[str]) -> Table:
    """The table with the rows and columns that match some patterns, each a name in which ``*`` stands for anything.

    Patterns that match rows choose among rows, those that match columns among columns; all where there is none. Rows
    stand in the order of their patterns.

    Raises:
        UserError: a pattern matches neither.
    """
    rows = dict.fromkeys(cell.row for cell in table.cells)
    columns = dict.fromkeys(cell.column for cell in table.cells)
    for pattern in patterns:
        if not _matching([*rows, *columns], [pattern]):
            names = ", ".join([*rows, *columns])
            raise UserError(f"no row or column of {table.name} is called '{pattern}'. There are: {names}.")
    of_rows, of_columns = _matching(rows, patterns) or set(rows), _matching(columns, patterns) or set(columns)
    cells = [cell for cell in table.cells if cell.row in of_rows and cell.column in of_columns]
    first = {row: next((i for i, pattern in enumerate(patterns) if fnmatchcase(row, pattern)), 0) for row in of_rows}
    return replace(table, cells=tuple(sorted(cells, key=lambda cell: first[cell.row])))


def usual_count(table: Table, lines: Lines) -> int:
    """The number of seeds that most cells have; 0 if nothing was run."""
    counts = [found.n for cell in table.cells if (found := summarise(table, cell, lines)).n > 0]
    return statistics.mode(counts) if counts else 0


def legend(table: Table, lines: Lines, yours: Lines = ()) -> str:
    """The unit, and what stands in the cells."""
    runs = by_owner(lines, yours)
    said = [f"{owner}: {seeds}" if len(runs) > 1 else seeds for owner in runs if (seeds := _seeds(table, runs[owner]))]
    return "; ".join([table.unit, *said])


def _seeds(table: Table, lines: Lines) -> str:
    """How many runs the numbers are of; empty if there is none."""
    usual = usual_count(table, lines)
    others = {summarise(table, cell, lines).n for cell in table.cells} - {0, usual}
    if not usual:
        return ""
    seeds = "one seed" if usual == 1 else f"mean ± std over {usual} seeds"
    return f"{seeds}{', or as many as brackets say' if others else ''}"


def _groups(table: Table) -> tuple[list[str], list[Group]]:
    """The methods' columns, and the lines below them."""
    cells = {(cell.row, cell.column, cell.method): cell for cell in table.cells}
    rows, columns, methods = (dict.fromkeys(key[i] for key in cells) for i in range(3))
    heads = [(column, method) for column in columns for method in methods if _is_used(cells, column, method)]
    if len(heads) <= WIDEST:
        header = [label(method) if len(columns) == 1 else f"{column}, {label(method)}" for column, method in heads]
        return header, [((row,), [cells.get((row, *head)) for head in heads]) for row in rows]
    places = dict.fromkeys(key[:2] for key in cells)
    names = (place if len(columns) > 1 else place[:1] for place in places)
    groups = [[cells.get((*place, method)) for method in methods] for place in places]
    return [label(method) for method in methods], list(zip(names, groups, strict=True))


def _is_used(cells: Iterable[tuple[str, str, str]], column: str, method: str) -> bool:
    return any(key[1:] == (column, method) for key in cells)


def _row_name(rows: Sequence[Row], index: int) -> str:
    """The name of the row of the table that a line belongs to: it stands in its first line alone."""
    return next((row[0] for row in reversed(rows[:index]) if row[0]), "")


def _lines_of(table: Table, names: Row, cells: Sequence[Cell | None], runs: Mapping[str, Lines]) -> list[Row]:
    """A line of numbers for each owner of runs, and below them that of the published ones if there are any."""
    rows: list[Row] = []
    for owner, lines in runs.items():
        usual = usual_count(table, lines)
        said = (owner,) if table.is_compared or len(runs) > 1 else ()
        numbers = ("" if cell is None else number(table, cell, lines, usual) for cell in cells)
        rows.append((*(names if not rows else [""] * len(names)), *said, *numbers))
    if any(cell is not None and cell.published is not None for cell in cells):
        rows.append((*[""] * len(names), "paper", *(published(table, cell) for cell in cells)))
    return rows


def _matching(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    patterns = list(patterns)
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}
