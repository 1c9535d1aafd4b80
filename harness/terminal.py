"""What `reproduce` shows on a terminal: progress, failures, tables."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import execute, render
from harness.execute import Job, Outcome
from harness.tables import Table


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
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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


def show_list(tables: Mapping[str, Table]) -> None:
    """Print what there is to run."""
    from rich.console import Console
    from rich.table import Table as Grid

    grid = Grid("table", "task", "title", "cells", "data it needs", "time", title="python -m reproduce TABLE")
    for table in tables.values():
        grid.add_row(table.name, table.task, table.title, str(len(table.cells)), table.needs, table.time)
    Console().print(grid)


def show_table(table: Table, lines: Sequence[dict[str, Any]]) -> None:
    """Print paper beside ours."""
    from rich.console import Console
    from rich.table import Table as Grid

    header, rows = render.grid(table, lines)
    grid = Grid(title=f"{table.title} ({table.unit})", title_justify="left")
    for index, head in enumerate(header):
        grid.add_column(head, justify="left" if index < 2 else "right")
    for row in rows:
        grid.add_row(*row)
    console = Console()
    console.print(grid)
    for remark in render.remarks(table, lines):
        console.print(f"  {remark}", markup=False, highlight=False)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
