"""What `reproduce` shows on a terminal: progress, failures, tables."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Grid
from rich.text import Text

from harness.tables import Table
from harness.tables.aggregate import lines_of, summarise
from reproduce import execute, render
from reproduce.execute import Job, Outcome

LABEL = 24  # characters that a row's label gets before it breaks into lines
GAP = 3  # characters between two columns


def run_jobs(jobs: Sequence[Job], tables: Mapping[str, Table], out: Path, workers: int | None) -> list[Outcome]:
    """Run the jobs behind a progress bar, keeping each result as it comes.

    Args:
        jobs: What to run.
        tables: The tables they belong to, by name.
        out: The results folder.
        workers: Processes; as many as there are cores if None.

    Returns:
        The jobs that failed.
    """
    console = Console(stderr=True)
    if not jobs:
        console.print(f"Every run is in {out} already; delete it to run them again.", markup=False)
        return []
    failures: list[Outcome] = []
    workers = min(workers or cores(), len(jobs))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{len(jobs)} runs, {workers} at a time", total=len(jobs))
        for done, outcome in enumerate(execute.execute(jobs, workers), start=1):
            if outcome.result is None:
                failures.append(outcome)
            else:
                execute.keep(tables[outcome.job.table], out, outcome)
            console.print(f"[{done}/{len(jobs)}] {sentence(tables[outcome.job.table], outcome)}", markup=False)
            progress.advance(bar)
    return failures


def sentence(table: Table, outcome: Outcome) -> str:
    """One line about a finished run."""
    if outcome.result is None:
        return f"{outcome.job}: FAILED"
    value = outcome.result["metrics"].get(outcome.job.cell.metric)
    number = "not finite" if value is None else f"{value * table.scale:.{table.decimals}f} {table.unit}"
    return f"{outcome.job}: {number} ({outcome.result['seconds']:.1f} s)"


def explain(failures: Iterable[Outcome]) -> list[str]:
    """Why runs failed, each reason once."""
    failures = list(failures)
    counts = Counter(outcome.failure for outcome in failures)
    first = {outcome.failure: outcome.job for outcome in reversed(failures)}
    return [f"FAILED {count} x: {reason} (first: {first[reason]})" for reason, count in counts.items()]


def show_list(tables: Mapping[str, Table], results: Path) -> None:
    """Print what there is to run: its source, its command, what it needs, and how much of it is in `results`."""
    console = Console(highlight=False)
    times = gpu_times(results)
    for table in tables.values():
        console.print(Text.assemble((table.name, "bold"), f"  {table.title} ({table.task})"))
        lines = lines_of(table, results, "paper")
        held = sum(summarise(table, cell, lines).n > 0 for cell in table.cells)
        about = {
            "source": table.source,
            "command": f"python -m reproduce {table.name}",
            "needs": table.needs or "nothing",
            "takes": table.time,
            "on a GPU": "; ".join(times.get(table.name, ())),
            "held": f"{held} of {len(table.cells)} numbers in {table.path(results)}" if held else "nothing yet",
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


def show_table(table: Table, lines: Sequence[dict[str, Any]]) -> None:
    """Print paper beside ours; a row's label stands beside its first method alone, what is too wide below the rest."""
    header, rows = render.grid(table, lines)
    console = Console()
    console.print(Text(f"{table.title} ({table.unit})", "italic"))
    for part in fitting_columns(header, rows, 2 if table.is_compared else 1, console.width):
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column(header[0])
        grid.add_column(header[1], no_wrap=True)
        for index in part:
            grid.add_column(header[index].replace(", ", ",\n"), justify="right", no_wrap=True)
        before = ""
        for row in rows:
            grid.add_row("" if row[0] == before else row[0], row[1], *(row[index] for index in part))
            before = row[0]
        console.print(grid)
    for remark in render.remarks(table, lines):
        console.print(Padding(Text(remark), (0, 0, 0, 2)))


def fitting_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]], together: int, width: int
) -> Iterator[list[int]]:
    """The columns after label and method, in parts that fit a terminal of `width`; `together` ones stay together."""

    def needed(index: int) -> int:
        cells = [*header[index].split(", "), *(row[index] for row in rows)]
        return GAP + max(map(len, cells))

    room = width - 2 - min(LABEL, needed(0) - GAP) - needed(1)  # 2: the frame
    part: list[int] = []
    for first in range(2, len(header), together):
        columns = list(range(first, first + together))
        if part and sum(map(needed, part + columns)) > room:
            yield part
            part = []
        part += columns
    yield part


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
