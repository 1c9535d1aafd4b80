"""The command that runs the scoreboard and writes it down.

    python -m reproduce scoreboard
    python -m reproduce scoreboard --methods bp shallow dfa my_rules.py:Clipped --tasks graphs docs-macro --seeds 3

First every rule tries the rates of the grid with seed 0, then the best of them is run with more seeds, then the steps
are measured. Runs that are done are kept in <out>/scoreboard/*.jsonl and not repeated. Yours are shown beside ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.data import data_root
from harness.errors import UserError
from harness.files import write_whole
from harness.methods import rule_of
from harness.tables import RunContext, Table
from harness.tables.aggregate import lines_of
from harness.tables.results import read
from reproduce import execute, progress
from reproduce.execute import Job, Outcome
from reproduce.runs import OUT, is_ours, results
from reproduce.scoreboard import page, picture, short, shown, summary
from reproduce.scoreboard.columns import COLUMNS, Column
from reproduce.scoreboard.tables import COST, FOLDER, ROWS, key, table_of

SLOWER = 1.1  # than backpropagation, of a rule without a run, for the forecast


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every rule on one model of every task, tuned by one grid, at equal steps."""

    methods: tuple[str, ...] = ()
    """Rules: names, or file.py:Class; all of the library if left out."""
    tasks: tuple[str, ...] = ()
    """Tasks, or single columns such as docs-macro; all if left out."""
    seeds: int = 3
    """Runs with the best rate, with seeds 0, 1, ..."""
    cost: bool = True
    """Measure time and memory of a step as well."""
    scale: Literal["paper", "quick"] = "paper"
    """paper: the lengths in the heads of the columns; quick: small, on embedded data, nothing downloaded."""
    jobs: int | None = None
    """Worker processes of one thread each; as many as there are cores if left out."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    data_dir: Path | None = None
    """Where data lies; only read. Default: $DFA_DATA, else the cache folder."""
    out: Path = OUT
    """Folder for your runs and their board. With results they are added to ours."""
    show: bool = False
    """Only print the board, with the runs that are there: run nothing, write nothing."""
    verbose: bool = False
    """A line for every run."""


def main(config: Config) -> None:
    """Run what is missing, then show and write the board."""
    columns, methods = chosen(config)
    if config.show:
        return show(columns, methods if config.methods else None, config)
    context = RunContext(scale=config.scale, data_dir=config.data_dir, device=config.device)
    if config.data_dir or config.scale == "paper":
        data_root(config.data_dir)
    failures: list[Outcome] = []
    stages = {"learning rates": rates, "seeds of the best": seeds, "cost of a step": costs}
    for name, stage in stages.items() if config.cost else list(stages.items())[:2]:
        jobs = [job for column in columns for job in stage(column, methods, config, context)]
        print(f"{name}: {forecast(jobs, config)}", flush=True)
        tables = {column.name: table_of(column, methods) for column in columns}
        tables = {name: in_ratios(table) for name, table in tables.items()} if stage is costs else tables
        failures += progress.run_jobs(jobs, tables, config.out, config.jobs, verbose=config.verbose)
    show(columns, None, config)
    print(write(config))
    progress.end(failures)


def chosen(config: Config) -> tuple[list[Column], list[str]]:
    """The columns and the rows that the command names.

    Raises:
        UserError: there is no such task, column or rule.
    """
    tasks = {column.task for column in COLUMNS.values()}
    for name in config.tasks:
        if name not in tasks | COLUMNS.keys():
            raise UserError(f"--tasks {name}: there are {', '.join(sorted(tasks))}, and columns {', '.join(COLUMNS)}.")
    if config.seeds < 1:
        raise UserError(f"--seeds {config.seeds}: must be at least 1.")
    methods = list(dict.fromkeys(config.methods or ROWS))
    for method in methods:
        rule_of(method)
    return page.chosen_columns(config.tasks), methods


def rates(column: Column, methods: Sequence[str], config: Config, context: RunContext) -> list[Job]:
    """The runs of seed 0 that the grid lacks."""
    return pending(table_of(column, methods), lambda filed: not filed.endswith(f"_{COST}"), 1, config, context)


def seeds(column: Column, methods: Sequence[str], config: Config, context: RunContext) -> list[Job]:
    """The runs that the best rates lack."""
    table = table_of(column, methods)
    lines = lines_of(table, config.out, context.label)
    best = {method: summary.best_rate(column, method, lines) for method in methods}
    wanted = {(method, key(column, rate)) for method, rate in best.items() if rate is not None}
    cells = tuple(cell for cell in table.cells if (cell.method, cell.key) in wanted)
    return execute.pending(replace(table, cells=cells), config.seeds, config.out, context)


def costs(column: Column, methods: Sequence[str], config: Config, context: RunContext) -> list[Job]:
    """The measurements of steps that are missing."""
    return pending(table_of(column, methods), lambda filed: filed.endswith(f"_{COST}"), 1, config, context)


def in_ratios(table: Table) -> Table:
    """A column whose numbers are those of `costs`, for the lines that are printed of its runs."""
    return replace(table, unit="times a step of backpropagation", scale=1.0, decimals=2)


def pending(table: Table, wanted: Callable[[str], bool], count: int, config: Config, context: RunContext) -> list[Job]:
    """The jobs of some cells of a table."""
    some = replace(table, cells=tuple(cell for cell in table.cells if wanted(cell.key)))
    return execute.pending(some, count, config.out, context)


def forecast(jobs: Sequence[Job], config: Config) -> str:
    """How long jobs will take, by the runs there are, else by the time that backpropagation was measured to take."""
    if not jobs:
        return "nothing to run"
    total = sum(seconds_of(job, config.out) for job in jobs)
    workers = min(config.jobs or progress.cores(), len(jobs))
    return f"{progress.runs(len(jobs))}, about {progress.duration(total / workers)} with {workers} at a time"


def seconds_of(job: Job, out: Path) -> float:
    """About how long a run will take."""
    column = COLUMNS[job.table]
    lines = [line for folder in {results(), out} for line in read(folder / FOLDER / f"{job.table}.jsonl")]
    of_kind = [line for line in lines if summary.is_cost(line) == job.cell.key.endswith(f"_{COST}")]
    same = [line for line in of_kind if line["method"] == job.cell.method] or of_kind
    times = [line["result"]["seconds"] for line in same if line["scale"] == job.context.label]
    return sum(times) / len(times) if times else SLOWER * column.seconds


def board(out: Path, scale: str = "paper") -> tuple[list[Column], list[str], page.Scores, list[summary.Line]]:
    """All that has been run: columns, rows (rules of users last), what they came to, and the runs."""
    return board_of(lines_below(out, scale), {})


def board_of(
    lines: Mapping[str, Sequence[summary.Line]], others: Mapping[str, Sequence[summary.Line]]
) -> tuple[list[Column], list[str], page.Scores, list[summary.Line]]:
    """The board of some runs.

    Args:
        lines: The runs, by column.
        others: Runs of which backpropagation and shallow training are taken where `lines` lack them, to compare with.
    """
    columns = [column for name, column in COLUMNS.items() if lines[name]]
    seen = dict.fromkeys(line["method"] for some in lines.values() for line in some)
    methods = [row for row in ROWS if row in seen] + [row for row in seen if row not in ROWS]
    found = {}
    for column in columns:
        there = {line["method"] for line in lines[column.name]}
        added = [line for line in others.get(column.name, ()) if line["method"] not in there]
        found[column.name] = summary.scores(column, methods, [*added, *lines[column.name]])
    return columns, methods, found, [line for some in lines.values() for line in some]


def lines_below(out: Path, scale: str) -> dict[str, list[summary.Line]]:
    """All runs of the board below a folder, by column."""
    files = {name: read(out / FOLDER / f"{name}.jsonl") for name in COLUMNS}
    return {name: [line for line in lines if line.get("scale") == scale] for name, lines in files.items()}


def boards(config: Config) -> dict[str, shown.Board]:
    """The boards of your runs and of ours, by whose they are; only those that hold any."""
    ours = lines_below(results(), config.scale)
    yours = {} if is_ours(config.out) else lines_below(config.out, config.scale)
    found = {"yours": board_of(yours, ours)} if any(yours.values()) else {}
    if any(ours.values()):
        found["ours"] = board_of(ours, {})
    return found


def show(columns: Sequence[Column], methods: Sequence[str] | None, config: Config) -> None:
    """Print some columns of the board, and all of its rows, or some."""
    if found := boards(config):
        shown.show(found, columns, methods, config.scale == "quick")
    else:
        print(f"no run yet in {config.out}")


def write(config: Config) -> Path:
    """Write the board as Markdown and as a picture, your runs before ours; the path of the former.

    What READMEs show of it is written beside it.
    """
    found = boards(config) or {"yours": board(config.out, config.scale)}
    texts = {owner: page.markdown(*some) for owner, some in found.items()}
    path = config.out / "scoreboard.md"
    whole = [f"# {owner.capitalize()}\n\n{text}" if len(texts) > 1 else text for owner, text in texts.items()]
    write_whole(path, "\n".join(whole))
    columns, methods, scores, _ = next(iter(found.values()))
    write_whole(path.with_suffix(".png"), picture.picture(columns, methods, scores))
    write_whole(path.with_stem("scoreboard-short"), short.markdown(columns, methods, scores))
    write_whole(path.with_stem("scoreboard-quality"), short.sentence(columns, scores))
    return path
