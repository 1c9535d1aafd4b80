"""What `reproduce` shows on a terminal: tables, and what tables there are."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from harness.tables import Table
from harness.tables.aggregate import summarise
from reproduce import layout, render
from reproduce.render import Lines
from reproduce.runs import Runs, is_ours, results

WIDTH = 100  # characters of a line that is not printed on a terminal
LABEL = 24  # characters that a name gets before it breaks into lines
GAP = 3  # characters between two columns


def show_list(tables: Mapping[str, Table], out: Path) -> None:
    """Print what there is to run: its source, its command, what it needs, how much is in results/, and in `out`."""
    console = Console(highlight=False)
    times = gpu_times(results())
    for table in tables.values():
        console.print(Text.assemble((table.name, "bold"), f"  {table.title} ({table.task})"))
        runs = Runs.of(table, out, "paper")
        about = {
            "source": table.source,
            "command": f"python -m reproduce {table.name}",
            "needs": table.needs or "nothing",
            "takes": table.time,
            "on a GPU": "; ".join(times.get(table.name, ())),
            "held": held(table, runs.ours, results()) or "nothing yet",
            "yours": "" if is_ours(out) else held(table, runs.yours, out),
        }
        grid = Grid.grid(padding=(0, 2))
        for word, text in about.items():
            if text:
                grid.add_row(Text(word, "dim"), Text(text))
        console.print(Padding(grid, (0, 0, 1, 4)))
    console.print(
        "Unless said otherwise, times are as measured, of a run on one core; on a GPU, of the run that takes longest "
        "on that core, several at a time. A table without such a line was not timed there."
    )


def held(table: Table, lines: Lines, folder: Path) -> str:
    """How much of a table has been run; empty if nothing."""
    count = sum(summarise(table, cell, lines).n > 0 for cell in table.cells)
    return f"{count} of {len(table.cells)} numbers in {table.path(folder)}" if count else ""


def gpu_times(results: Path) -> dict[str, list[str]]:
    """What `python -m benchmarks.run_times` found on GPUs: sentences by the table's name.

    Args:
        results: The results folder; files `benchmarks/run_times-*.json` below it.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((results / "benchmarks").glob("run_times-*.json")):
        measured = json.loads(path.read_text(encoding="utf-8"))
        for row in measured["rows"]:
            length = "" if row["epochs"] == "all" else f", {row['epochs']} epochs"
            sentence = f"{row['seconds']:.0f} s for {row['run']}{length} ({measured['environment']['device']})"
            found.setdefault(row["table"], []).append(sentence)
    return found


def show_table(table: Table, lines: Lines, yours: Lines = ()) -> None:
    """Print a table, methods side by side; what is too wide for the terminal stands below the rest."""
    header, rows = layout.arranged(table, lines, yours)
    title = f"{table.title} ({layout.legend(table, lines, yours)})"
    show_grid(title, header, rows, layout.named_columns(header), render.remarks(table, lines, yours))


def show_grid(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], named: int, remarks: Iterable[str]
) -> None:
    """Print rows of numbers below a title; what is too wide for the terminal stands below the rest.

    Args:
        title: What it is.
        header: The names of the columns.
        rows: Their cells.
        named: The first columns that hold names, and stand before every part.
        remarks: Sentences to print below.
    """
    console = Console(highlight=False)
    console = console if console.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=WIDTH)
    console.print(Text(title, "bold"))
    for part in fitting_columns(header, rows, named, console.width):
        console.print(_part(header, rows, named, part))
    for remark in remarks:
        console.print(Padding(Text(remark), (0, 0, 0, 2)))
    console.print()
    console.file.flush()  # a pipe would keep it until the end of all runs


def _part(header: Sequence[str], rows: Sequence[Sequence[str]], named: int, columns: Sequence[int]) -> Grid:
    """Names, and some of the columns of numbers."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for index in range(named):
        grid.add_column(header[index], max_width=LABEL)
    for index in columns:
        grid.add_column(header[index].replace(", ", ",\n"), justify="right", no_wrap=True)
    before = ""
    for row in rows:
        again = "method" in header and row[0] == before
        style = "dim" if "paper" in row[:named] else None
        grid.add_row("" if again else row[0], *row[1:named], *(row[index] for index in columns), style=style)
        before = row[0]
    return grid


def fitting_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], named: int, width: int
) -> Iterator[list[int]]:
    """The columns after the first `named`, in parts that fit a terminal of `width`.

    Those of one name before the comma stay together, if they fit together at all.
    """

    def needed(columns: Iterable[int], most: int | None = None) -> int:
        texts = ("\n".join([header[index].replace(", ", "\n"), *(row[index] for row in rows)]) for index in columns)
        widths = (max(map(len, text.split("\n"))) for text in texts)
        return sum(GAP + (value if most is None else min(most, value)) for value in widths)

    room = width + GAP - 2 - needed(range(named), LABEL)  # 2: the frame
    part: list[int] = []
    for _, same in groupby(range(named, len(header)), key=lambda index: header[index].rpartition(", ")[0] or index):
        group = list(same)
        for columns in [group] if needed(group) <= room else [[index] for index in group]:
            if part and needed(part + columns) > room:
                yield part
                part = []
            part = part + columns
    yield part
