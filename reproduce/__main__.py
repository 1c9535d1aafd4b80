"""Reproduce published tables: run what is missing, show paper beside ours, write the report.

    python -m reproduce --list
    python -m reproduce table3 --seeds 10 --datasets cora citeseer
    python -m reproduce --all --scale quick --out results/quick
    python -m reproduce scoreboard --methods bp shallow dfa fitted --tasks graphs docs-macro --seeds 3
    python -m reproduce --readme

Runs that are done are kept in <out>/<task>/<table>.jsonl and not repeated: give an interrupted command again.
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
from harness.errors import UserError, writing
from harness.files import write_whole
from harness.report import Section
from harness.tables import RunContext, Table, aggregate
from harness.tables.aggregate import lines_of
from reproduce import blocks, execute, layout, readme, terminal
from reproduce.report.page import write_report
from reproduce.small import small
from reproduce.tasks import TASKS, discover, task_sections

ROOT = Path(__file__).resolve().parent.parent
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
    """Run published tables, compare them with the papers, write a report. Finished runs are kept and not repeated."""

    tables: tyro.conf.Positional[tuple[str, ...]] = ()
    """Tables to run; --list names them. Or scoreboard: every rule on one model of every task, tuned by one grid."""
    all: bool = False
    """Every table of every task."""
    list: bool = False
    """Name the tables and figures: source, command, what they need, how long they take, how much is in --out."""
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
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    data_dir: Path | None = None
    """Where data lies; only read. Default: $DFA_DATA, else the cache folder."""
    out: Path = Path("results")
    """Folder for runs, Markdown tables and report.html."""
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
        tables = {name: aggregate.with_methods(table, config.methods) for name, table in tables.items()}
        reproduce(choose(tables, config), tables, config)


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


def reproduce(chosen: list[Table], tables: dict[str, Table], config: Config) -> None:
    """Run what is missing, then show and write everything; status 1 if a run failed, 2 if the user can mend that."""
    check_places(config)
    context = RunContext(scale=config.scale, data_dir=config.data_dir, device=config.device, epochs=config.epochs)
    seeds = config.seeds or SEEDS[config.scale]
    jobs = [job for table in chosen for job in execute.pending(table, seeds, config.out, context)]
    failures = terminal.run_jobs(jobs, {table.name: table for table in chosen}, config.out, config.jobs)
    for table in chosen:
        lines = lines_of(table, config.out, context.label)
        terminal.show_table(table if config.epochs is None else aggregate.at_own_length(table), lines)
        if config.epochs is None:
            write_markdown(tables[table.name], config)
    complaints = terminal.explain(failures)
    path, troubles = make_report(tables, [table.name for table in chosen], config, context)
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
    with writing(config.out):
        config.out.mkdir(parents=True, exist_ok=True)


def make_report(
    tables: dict[str, Table], chosen: Sequence[str], config: Config, context: RunContext
) -> tuple[Path, list[str]]:
    """Write report.html; returns its path, and what went wrong in a task's own sections.

    It shows the chosen tables and all that have results: at the published scale, and the small runs if these were made.
    """
    results = config.out if config.scale == "paper" else ROOT / "results"
    small = config.out if config.scale == "quick" else None
    sections: dict[str, list[Section]] = {}
    troubles: list[str] = []
    shown = [table for table in tables.values() if table.name in chosen or table.path(results).exists()]
    for task in dict.fromkeys(table.task for table in shown):
        sections[task] = task_sections(task, results, replace(context, scale="paper"), troubles, "full runs")
        if small:
            sections[task] += task_sections(task, small, context, troubles, "small runs")
    path = config.out / "report.html"
    write_report(path, TITLE, LEAD, shown, sections, results, small)
    return path, troubles


def refresh_readmes(tables: dict[str, Table], config: Config) -> None:
    """Rewrite, or only compare, the blocks of the README files: a table's, or a Markdown file's below results/."""

    text = blocks.source(tables, config.out, ROOT)
    paths = [path for pattern in READMES for path in sorted(ROOT.glob(pattern))]
    if config.readme:
        for path in readme.update(paths, text):
            print(f"rewrote {path}")
    elif changed := readme.outdated(paths, text):
        for path in changed:
            print(f"{path} differs from {config.out}: run `python -m reproduce --readme`", file=sys.stderr)
        sys.exit(1)


def write_markdown(table: Table, config: Config) -> None:
    """Write the whole table as Markdown, also where the command ran a part of it."""
    whole = small(table) if config.scale == "quick" else table
    path = table.path(config.out).with_suffix(".md")
    write_whole(path, layout.markdown(whole, lines_of(whole, config.out, config.scale)))


if __name__ == "__main__":
    cli.run(Config, main)
