"""Run what a table still lacks, in worker processes, and keep every result the moment it is there.

A worker imports the task by name and finds its table there, so nothing but names crosses the process border, and a
worker that dies (out of memory, a crash in a library) costs the run it was at, not the others.
"""

import importlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.tables import Cell, RunContext, Table, results
from harness.tables.aggregate import RunKey, key_of, lines_of, wanted_runs

DIED = "the process died: killed, out of memory, or crashed inside a library"
# Where tables are that no task has.
MODULES = {name: f"reproduce.{name}.tables" for name in ("scoreboard", "advice", "learned")}


@dataclass(frozen=True)
class Job:
    """One run that a table needs."""

    task: str
    table: str
    cell: Cell
    seed: int
    context: RunContext

    def __str__(self) -> str:
        return f"{self.table}: {self.cell.row} {self.cell.method} on {self.cell.dataset}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: a result, or the reason why there is none."""

    job: Job
    result: dict[str, Any] | None = None
    failure: str = ""
    users_mistake: bool = False  # the reason is one that the user can put right


def pending(table: Table, seeds: int, folder: Path, context: RunContext) -> list[Job]:
    """The jobs of `table` that have no line yet."""
    done: set[RunKey] = {key_of(line) for line in lines_of(table, folder, context.label)}
    wanted = wanted_runs(table, seeds)
    jobs = [Job(table.task, table.name, cell, key[3], context) for key, cell in wanted.items() if key not in done]
    order = {cell: index for index, cell in enumerate(table.cells)}
    return sorted(jobs, key=lambda job: (job.seed, order[job.cell]))


def keep(table: Table, folder: Path, outcome: Outcome) -> None:
    """Append a finished job to its table's file."""
    cell, job = outcome.job.cell, outcome.job
    line = {
        "table": job.table,
        "row": cell.row,
        "column": cell.column,
        "preset": cell.key,
        "dataset": cell.dataset,
        "method": cell.method,
        "seed": job.seed,
        "scale": job.context.label,
        "result": outcome.result,
    }
    results.append(table.path(folder), line)


def execute(jobs: Iterable[Job], workers: int) -> Iterator[Outcome]:
    """Run `jobs` in `workers` processes; yields each as it ends, in no order.

    A job that raises, or whose process dies, yields an outcome with a failure, and the others go on.
    """
    waiting = list(jobs)[::-1]
    while waiting:
        suspects: list[Job] = []
        yield from _until_broken(waiting, workers, suspects)
        for job in suspects:  # all that were running when a process died: each alone, to find the one at fault
            again: list[Job] = []
            yield from _until_broken([job], 1, again)
            if again:
                yield Outcome(job, failure=DIED)


def _until_broken(waiting: list[Job], workers: int, suspects: list[Job]) -> Iterator[Outcome]:
    """Take jobs off the end of `waiting` until none is left or a process dies; then `suspects` are those that ran."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_prepare) as pool:
        running: dict[Future, Job] = {}
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                try:
                    running[pool.submit(_work, job)] = job
                except BrokenProcessPool:
                    suspects += [job, *running.values()]
                    return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    suspects += [job, *running.values()]
                    return


def _prepare() -> None:
    """A worker keeps to one core, so that `--jobs` is what the user thinks it is, and leaves when its parent does."""
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once and without a traceback of its own
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _leave_with_parent() -> None:
    """A parent that was killed cannot stop its workers: without this they would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(job: Job) -> Outcome:
    """In the worker: find the table by name and run one cell of it."""
    try:
        module = importlib.import_module(MODULES.get(job.task, f"{job.task}.tables"))
        [table] = [table for table in module.TABLES if table.name == job.table]
        return Outcome(job, result=results.plain(table.run(job.cell, job.seed, job.context)))
    except UserError as error:
        return Outcome(job, failure=str(error), users_mistake=True)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f" ({Path(last.filename).name}:{last.lineno})"
        return Outcome(job, failure=f"{type(error).__name__}: {' '.join(str(error).split())}{where}")
