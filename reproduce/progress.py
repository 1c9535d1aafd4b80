"""Runs what tables lack, and says how far that is: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.tables import Table
from reproduce import execute
from reproduce.execute import Job, Outcome

LINES = 10  # in a log file, about


def run_jobs(
    jobs: Sequence[Job],
    tables: Mapping[str, Table],
    out: Path,
    workers: int | None = None,
    *,
    verbose: bool = False,
    done: Callable[[Table], None] = lambda table: None,
) -> list[Outcome]:
    """Run the jobs, keeping each result as it comes.

    Args:
        jobs: What to run.
        tables: The tables, by name: those that the jobs belong to, and others to which nothing is to be added.
        out: The folder for the runs.
        workers: Processes; as many as there are cores if None.
        verbose: A line for every run.
        done: Called for every table, as soon as it has no job left.

    Returns:
        The jobs that failed.
    """
    left = Counter(job.table for job in jobs)
    for name, table in tables.items():
        if not left[name]:
            done(table)
    failures: list[Outcome] = []
    workers = min(workers or cores(), len(jobs)) or 1
    with Teller(len(jobs), workers, verbose) as teller:
        for outcome in execute.execute(jobs, workers):
            table = tables[outcome.job.table]
            if outcome.result is None:
                failures.append(outcome)
            else:
                execute.keep(table, out, outcome)
            teller.tell(sentence(table, outcome), len(failures))
            left[table.name] -= 1
            if not left[table.name]:
                with teller.silent():
                    done(table)
    return failures


class Teller:
    """Says on stderr how many of the runs are done, how many failed, and how long the rest will take."""

    def __init__(self, count: int, workers: int, verbose: bool) -> None:
        self.count, self.workers, self.verbose = count, workers, verbose
        self.console = Console(stderr=True, highlight=False)
        bar = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        # Not through the bar's console: it is that of stderr, and tables belong on stdout.
        options = {"transient": True, "redirect_stdout": False, "redirect_stderr": False}
        self.progress = Progress(TextColumn("{task.description}"), *bar, console=self.console, **options)  # type: ignore[arg-type]
        self.bar = self.progress.add_task(f"{workers} at a time", total=count)
        self.done = 0

    def __enter__(self) -> Teller:
        self.start = monotonic()
        if self.count and not self.console.is_terminal:
            self.say(f"{runs(self.count)}, {self.workers} at a time")
        self._draw()
        return self

    def __exit__(self, *error: object) -> None:
        self._wipe()

    def tell(self, sentence: str, failed: int) -> None:
        """A run is done, of which there is something to say."""
        self.done += 1
        failures = f", {failed} failed" if failed else ""
        self.progress.update(self.bar, advance=1, description=f"{self.workers} at a time{failures}")
        if self.verbose:
            self.say(f"[{self.done}/{self.count}] {sentence}")
        elif not self.console.is_terminal and self._is_time():
            self.say(f"{self.done} of {runs(self.count)} done{failures}; {self._left()}")

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """No bar while something else is printed."""
        self._wipe()
        yield
        self._draw()

    def _draw(self) -> None:
        if self.console.is_terminal and self.done < self.count:
            self.progress.start()

    def _wipe(self) -> None:
        if self.console.is_terminal:  # elsewhere it would print an empty line
            self.progress.stop()

    def _is_time(self) -> bool:
        """Whether the last run took the whole over a tenth."""
        return self.done * LINES // self.count > (self.done - 1) * LINES // self.count

    def _left(self) -> str:
        """How long it took, and will take."""
        taken = monotonic() - self.start
        left = taken / self.done * (self.count - self.done)
        return f"{duration(taken)}, about {duration(left)} left" if left else duration(taken)


def runs(count: int) -> str:
    """So many runs, in words.

    Example:
        >>> runs(1), runs(2)
        ('1 run', '2 runs')
    """
    return f"{count} run{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> duration(8.4), duration(200), duration(7300)
        ('8 s', '3 min', '2.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def sentence(table: Table, outcome: Outcome) -> str:
    """One line about a finished run."""
    if outcome.result is None:
        return f"{outcome.job}: FAILED"
    value = outcome.result["metrics"].get(outcome.job.cell.metric)
    number = "not finite" if value is None else f"{value * table.scale:.{table.decimals}f} {table.unit}"
    return f"{outcome.job}: {number} ({outcome.result['seconds']:.1f} s)"


def end(failures: Sequence[Outcome]) -> None:
    """End a command whose runs failed: a line a reason, and status 2 if the user can mend them all, else 1."""
    for line in explain(failures):
        print(line, file=sys.stderr)
    if failures:
        sys.exit(2 if all(outcome.users_mistake for outcome in failures) else 1)


def explain(failures: Iterable[Outcome]) -> list[str]:
    """Why runs failed, each reason once."""
    failures = list(failures)
    counts = Counter(outcome.failure for outcome in failures)
    first = {outcome.failure: outcome.job for outcome in reversed(failures)}
    return [f"FAILED {count} x: {reason} (first: {first[reason]})" for reason, count in counts.items()]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
