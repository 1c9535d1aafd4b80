"""Reproduce published tables: run them, show your runs beside ours and the paper, write the report.

    python -m reproduce --list
    python -m reproduce table3 --show
    python -m reproduce table3 --seeds 10 --datasets cora citeseer
    python -m reproduce --all --scale quick --out results/quick
    python -m reproduce scoreboard --methods bp shallow dfa fitted --tasks graphs docs-macro --seeds 3
    python -m reproduce --readme

Runs that are done are kept in <out>/<task>/<table>.jsonl and not repeated: give an interrupted command again. Ours are
in results/, and --out results adds to them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from harness import cli
from harness.data import data_root
from harness.device import pick_device
from harness.errors import UserError
from harness.files import write_whole
from harness.report import Section
from harness.tables import RunContext, Table, aggregate
from reproduce import blocks, execute, layout, progress, readme, terminal
from reproduce.report.page import write_report
from reproduce.report.parts import your_parts
from reproduce.runs import OUT, ROOT, Runs, is_ours, make_folder, results
from reproduce.small import small
from reproduce.tasks import TASKS, discover, task_sections

READMES = (
    "README.md",
    "tinydfa/README.md",
    "benchmarks/README.md",
    *(f"{task}/{name}.md" for task in TASKS for name in ("README", "RESULTS")),
    "docs/*.md",
)
SEEDS = {"quick": 2, "paper": 10}
TITLE = "Training without backpropagation"
LEAD = (
    "Backpropagation (BP) sends the output error back layer by layer. Direct feedback alignment (DFA) sends it to "
    "every hidden layer at once, through one fixed random matrix, and the network learns all the same. "
    "Here are published tables beside our runs."
)


@dataclass(frozen=True)
class Config:
    """Run published tables, show your runs beside ours and the paper, write a report. What is done is not repeated."""

    tables: tyro.conf.Positional[tuple[str, ...]] = ()
    """Tables to run; --list names them. Or scoreboard: every rule on one model of every task, tuned by one grid."""
    all: bool = False
    """Every table of every task."""
    list: bool = False
    """Name the tables and figures: source, command, what they need, how long they take, how much of them is there."""
    show: bool = False
    """Only print the tables, with the runs that are there: run nothing, write nothing."""
    seeds: int | None = None
    """Runs per cell, with seeds 0, 1, ...; 10 at the published scale, 2 at the quick one."""
    datasets: tuple[str, ...] = ()
    """Cells on these data sets only."""
    methods: tuple[str, ...] = ()
    """These methods only: names, or file.py:Class. One that a table lacks has the settings of DFA."""
    tasks: tuple[str, ...] = ()
    """Of the scoreboard: these tasks alone, or these columns, such as docs-macro."""
    scale: Literal["paper", "quick"] = "paper"
    """paper: the published setting; quick: small, on embedded data, nothing downloaded."""
    epochs: int | None = None
    """Epochs of every run, in place of the table's own length; such runs are kept apart from the others."""
    jobs: int | None = None
    """Worker processes of one thread each; as many as there are cores if left out."""
    verbose: bool = False
    """A line for every run."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    data_dir: Path | None = None
    """Where data lies; only read. Default: $DFA_DATA, else the cache folder."""
    out: Path = OUT
    """Folder for your runs, Markdown tables and report.html. With results they are added to ours."""
    readme: bool = False
    """Rewrite the result tables in the README files from results/."""
    check_readme: Annotated[bool, tyro.conf.arg(name="check-readme")] = False
    """Leave with status 1 if a README file differs from results/."""


def main(config: Config) -> None:
    """Do what the options say."""
    if "scoreboard" in config.tables:
        return run_scoreboard(config)
    if config.tasks:
        raise UserError("--tasks is about the scoreboard. Name the tables, or use --datasets.")
    tables = discover()
    if config.list:
        terminal.show_list(tables, config.out)
    elif config.readme or config.check_readme:
        refresh_readmes(tables, config)
    else:
        tables = with_methods(tables, config)
        chosen = choose(tables, config)
        show(chosen, config) if config.show else reproduce(chosen, tables, config)


def with_methods(tables: dict[str, Table], config: Config) -> dict[str, Table]:
    """The tables, those that the command names with its methods; of all, those are left out that refuse the methods."""
    found = dict(tables)
    for name in tables if config.all else [name for name in config.tables if name in tables]:
        try:
            found[name] = aggregate.with_methods(tables[name], config.methods)
        except UserError as error:
            if not config.all:
                raise UserError(f"{name}: {error}") from error
            print(f"left out: {name}: {error}", file=sys.stderr)
            del found[name]
    return found


def run_scoreboard(config: Config) -> None:
    """Run the scoreboard, and nothing else."""
    from reproduce.scoreboard import command

    mine = {field.name for field in fields(command.Config)} & {field.name for field in fields(Config)}
    for field in fields(Config):
        given = getattr(config, field.name) != field.default
        if (given and field.name not in mine | {"tables"}) or len(config.tables) > 1:
            what = f"--{field.name.replace('_', '-')}" if given and len(config.tables) == 1 else "another table"
            raise UserError(f"{what} has no meaning for the scoreboard. Leave it out.")
    options = {name: getattr(config, name) for name in mine if getattr(config, name) is not None}
    command.main(command.Config(**options))


def choose(tables: dict[str, Table], config: Config) -> list[Table]:
    """The tables that the command names, cut to its data sets, at its scale."""
    for name in config.tables:
        if name not in tables:
            raise UserError(f"no table is called '{name}'. There are: {', '.join(tables)}; --list says more.")
    if not config.tables and not config.all:
        raise UserError(f"say which tables to run, or --all. There are: {', '.join(tables)}; --list says more.")
    for option, value in (("--seeds", config.seeds), ("--jobs", config.jobs), ("--epochs", config.epochs)):
        if value is not None and value < 1:
            raise UserError(f"{option} {value}: must be at least 1.")
        if value is not None and config.show and option != "--epochs":
            raise UserError(f"{option} has no meaning with --show, which runs nothing. Drop one.")
    chosen = [tables[name] for name in (tables if config.all else dict.fromkeys(config.tables))]
    if config.scale == "quick":
        if config.datasets:
            raise UserError(
                "--datasets has no meaning with --scale quick, which runs on embedded data alone. Drop one."
            )
        return [small(table) for table in chosen if table.cells and (table.in_quick or not config.all)]
    aggregate.check_datasets(chosen, config.datasets)
    parts = [aggregate.only(table, config.datasets) for table in chosen]
    return [part for part in parts if part.cells]


def context_of(config: Config) -> RunContext:
    """What all runs of the command have in common."""
    return RunContext(scale=config.scale, data_dir=config.data_dir, device=config.device, epochs=config.epochs)


def show(chosen: list[Table], config: Config) -> None:
    """Print tables with the runs there are."""
    for table in chosen:
        terminal.show_table(at_length(table, config), *Runs.of(table, config.out, context_of(config).label))


def at_length(table: Table, config: Config) -> Table:
    """The table, which says nothing of lengths if the command has one of its own."""
    return table if config.epochs is None else aggregate.at_own_length(table)


def reproduce(chosen: list[Table], tables: dict[str, Table], config: Config) -> None:
    """Run what is missing, show and write everything; status 1 if a run failed, 2 if the user can mend that."""
    check_places(config)
    context = context_of(config)
    seeds = config.seeds or SEEDS[config.scale]
    jobs = [job for table in chosen for job in execute.pending(table, seeds, config.out, context)]
    if not jobs:
        print(f"Every run is in {config.out} already; delete it to run them again.", file=sys.stderr)

    def done(table: Table) -> None:
        show([table], config)
        if config.epochs is None:
            write_markdown(tables[table.name], config)

    by_name = {table.name: table for table in chosen}
    failures = progress.run_jobs(jobs, by_name, config.out, config.jobs, verbose=config.verbose, done=done)
    complaints = progress.explain(failures)
    path, troubles = make_report(tables, chosen, config, context)
    for line in complaints + troubles:
        print(line, file=sys.stderr)
    if config.all and config.scale == "quick":
        tell_left_out([name for name, table in tables.items() if not table.in_quick], config.out)
    print(path)
    if complaints or troubles:
        sys.exit(2 if not troubles and all(outcome.users_mistake for outcome in failures) else 1)


def tell_left_out(names: Sequence[str], out: Path) -> None:
    """Say which tables `--all --scale quick` does not run, and how to run one; nothing if it runs all."""
    if names:
        command = f"python -m reproduce {names[0]} --scale quick --out {out}"
        print(f"left out, as they take longer or say the same again: {', '.join(names)}; to run one: {command}")


def check_places(config: Config) -> None:
    """Raise `UserError` now for what would otherwise fail in every single run."""
    if config.data_dir or config.scale == "paper":
        data_root(config.data_dir)
    if config.device != "auto":
        pick_device(config.device)
    make_folder(config.out)


def make_report(
    tables: dict[str, Table], chosen: list[Table], config: Config, context: RunContext
) -> tuple[Path, list[str]]:
    """Write report.html; returns its path, and what went wrong in a task's own sections.

    It shows the chosen tables and all that have results: your runs first, then ours at the published scale, and the
    small runs if these were made.
    """
    small = config.out if config.scale == "quick" else None
    yours = None if small or is_ours(config.out) else config.out
    names = {table.name for table in chosen}
    sections: dict[str, list[Section]] = {}
    troubles: list[str] = []
    shown = [table for table in tables.values() if table.name in names or table.path(results()).exists()]
    mine = [at_length(table, config) for table in chosen if yours and Runs.of(table, yours, context.label).yours]
    for task in dict.fromkeys(table.task for table in shown):
        paper = replace(context, scale="paper", epochs=None)
        sections[task] = task_sections(task, results(), paper, troubles, "full runs")
        if small:
            sections[task] += task_sections(task, small, context, troubles, "small runs")
        elif yours and any(table.task == task for table in mine):
            sections[task] += task_sections(task, yours, context, troubles, "your runs")
    path = config.out / "report.html"
    write_report(path, TITLE, LEAD, shown, sections, results(), small, your_parts(mine, config.out, context.label))
    return path, troubles


def refresh_readmes(tables: dict[str, Table], config: Config) -> None:
    """Rewrite, or only compare, the blocks of the README files: a table's, or a Markdown file's below results/."""

    folder = results() if config.out == OUT else config.out
    text = blocks.source(tables, folder, ROOT)
    paths = [path for pattern in READMES for path in sorted(ROOT.glob(pattern))]
    if config.readme:
        for path in readme.update(paths, text):
            print(f"rewrote {path}")
    elif changed := readme.outdated(paths, text):
        for path in changed:
            print(f"{path} differs from {folder}: run `python -m reproduce --readme`", file=sys.stderr)
        sys.exit(1)


def write_markdown(table: Table, config: Config) -> None:
    """Write the whole table as Markdown, also where the command ran a part of it."""
    whole = small(table) if config.scale == "quick" else table
    path = table.path(config.out).with_suffix(".md")
    write_whole(path, layout.markdown(whole, *Runs.of(whole, config.out, config.scale)))


if __name__ == "__main__":
    cli.run(Config, main)
