"""How long a run of each table takes on a device, as `python -m reproduce --list` says it.

    python -m benchmarks.run_times --device cuda --jobs 8 --out results/benchmarks/run_times-cuda.json
    python -m benchmarks.run_times --tables drtp-mnist --epochs 10 --device cuda --out run_times.json

Of every table the run is made that took longest among those that `results/` holds, at its whole length or that of
`--epochs`. Seconds are those of its result: training and scoring, without starting Python. `--jobs` runs share the
device, as those of `reproduce` do, so a run alone takes at most as long. Rows of other tables in `--out` are kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import save
from harness.device import pick_device
from harness.errors import UserError
from harness.tables import RunContext, Table
from harness.tables.aggregate import lines_of, wanted_runs
from reproduce import execute
from reproduce.execute import Job, Outcome

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time a run of each table on a device."""

    tables: tuple[str, ...] = ()
    """Tables to time; all of which `--results` holds a run if left out."""
    epochs: int | None = None
    """Epochs of every run, in place of the table's own length."""
    jobs: int = 1
    """Runs at a time."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    data_dir: Path | None = None
    """Where data lies; only read. Default: $DFA_DATA, else the cache folder."""
    results: Path = Path("results")
    """Where the runs lie that say which one of a table takes longest."""
    out: Path
    """Write the numbers to this JSON file, and beside it as a Markdown table."""

    def __post_init__(self) -> None:
        for option, value in (("--jobs", self.jobs), ("--epochs", self.epochs)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: must be at least 1.")


def longest(table: Table, config: Config) -> Job | None:
    """The run of `table` that took longest among those that are held; None if there are none."""
    lines = lines_of(table, config.results, RunContext().label)
    if not lines:
        return None
    line = max(lines, key=lambda line: line["result"]["seconds"])
    key = (line["preset"], line["dataset"], line["method"], line["seed"])
    context = RunContext(data_dir=config.data_dir, device=config.device, epochs=config.epochs)
    return Job(table.task, table.name, wanted_runs(table, line["seed"] + 1)[key], line["seed"], context)


def row_of(outcome: Outcome, config: Config) -> Row:
    """What is kept of a finished run."""
    job = outcome.job
    assert outcome.result is not None
    return {
        "table": job.table,
        "run": f"{job.cell.row} {job.cell.method} on {job.cell.dataset}",
        "epochs": "all" if config.epochs is None else str(config.epochs),
        "seconds": round(outcome.result["seconds"], 1),
        "runs at a time": config.jobs,
    }


def before(path: Path, tables: Sequence[str]) -> list[Row]:
    """The rows of an earlier call that are of other tables than `tables`."""
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return [row for row in rows if row["table"] not in tables]


def main(config: Config) -> None:
    """Run by run, keeping each as it ends; status 1 if one failed."""
    from reproduce.tasks import discover

    device = str(pick_device(config.device))
    known = discover()
    if unknown := [name for name in config.tables if name not in known]:
        raise UserError(f"no table is called '{unknown[0]}'. There are: {', '.join(known)}.")
    jobs = [job for name in config.tables or known if (job := longest(known[name], config)) is not None]
    failed = False
    rows: list[Row] = []
    for outcome in execute.execute(jobs, config.jobs):
        if outcome.result is None:
            failed = True
            print(f"{outcome.job}: {outcome.failure}", file=sys.stderr)
            continue
        rows.append(row_of(outcome, config))
        print(f"{rows[-1]['table']}: {rows[-1]['run']}, {rows[-1]['seconds']} s", file=sys.stderr)
        others = before(config.out, [row["table"] for row in rows])
        save(config.out, device, sorted(others + rows, key=lambda row: list(known).index(row["table"])))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
