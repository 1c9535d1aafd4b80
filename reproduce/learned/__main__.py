"""Run what stands behind docs/learned-feedback.md, and write it down: `python -m reproduce.learned`.

Runs that are done are kept in <out>/learned/*.jsonl and not repeated; ours are in results/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness import cli
from harness.data import data_root
from harness.device import pick_device
from harness.errors import UserError
from harness.files import write_whole
from harness.tables import RunContext
from harness.tables.aggregate import lines_of
from reproduce import execute, layout, progress
from reproduce.learned import ablation, alignment
from reproduce.learned.tables import TABLES
from reproduce.runs import OUT, make_folder, results
from reproduce.scoreboard import command
from reproduce.scoreboard.summary import Score


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of fitted one at a time, the alignment of learned feedback while it trains, and what bounds it."""

    tables: tuple[str, ...] = tuple(table.name for table in TABLES)
    """Which of them."""
    seeds: int = 3
    """Runs of every cell, with seeds 0, 1, ..."""
    scale: Literal["paper", "quick"] = "paper"
    """paper: the lengths of the scoreboard; quick: a few steps on embedded data, to see that it runs."""
    jobs: int | None = None
    """Worker processes of one thread each; as many as there are cores if left out."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    data_dir: Path | None = None
    """Where data lies; only read. Default: $DFA_DATA, else the cache folder."""
    out: Path = OUT
    """Folder for your runs and their tables. With results they are added to ours."""


def main(config: Config) -> None:
    """Run what is missing, and write tables and picture; status 1 if a run failed, 2 if the user can mend that."""
    if config.seeds < 1:
        raise UserError(f"--seeds {config.seeds}: must be at least 1.")
    known = {table.name: table for table in TABLES}
    for name in config.tables:
        if name not in known:
            raise UserError(f"--tables {name}: there are {', '.join(known)}.")
    check_places(config)
    context = RunContext(scale=config.scale, data_dir=config.data_dir, device=config.device)
    chosen = {name: known[name] for name in dict.fromkeys(config.tables)}
    jobs = [job for table in chosen.values() for job in execute.pending(table, config.seeds, config.out, context)]
    failures = progress.run_jobs(jobs, chosen, config.out, config.jobs)
    for name in chosen:
        print(write(name, config.out, context.label))
    progress.end(failures)


def check_places(config: Config) -> None:
    """Raise `UserError` now for what would otherwise fail in every single run."""
    if config.data_dir or config.scale == "paper":
        data_root(config.data_dir)
    if config.device != "auto":
        pick_device(config.device)
    make_folder(config.out)


def write(name: str, out: Path, scale: str) -> Path:
    """Write a table as Markdown, and the picture that it has; the path of the former."""
    [table] = [table for table in TABLES if table.name == name]
    lines = lines_of(table, out, scale)
    path = table.path(out).with_suffix(".md")
    if table is ablation.ABLATION:
        write_whole(path, ablation.markdown(table, lines, ends(out, scale)))
        return path
    write_whole(path, layout.markdown(table, lines))
    if table is alignment.ALIGNMENT and lines:
        write_whole(path.with_suffix(".png"), alignment.picture(lines))
    return path


def ends(out: Path, scale: str) -> dict[str, tuple[Score, Score]]:
    """What shallow training and backpropagation came to on the scoreboard, by column; on ours where `out` lacks one."""
    boards = [command.board(folder, scale)[2] for folder in (results(), out)]
    ours, theirs = (
        {name: (at.get("shallow", Score()), at.get("bp", Score())) for name, at in b.items()} for b in boards
    )
    return ours | {name: two for name, two in theirs.items() if None not in [score.mean for score in two]}


if __name__ == "__main__":
    cli.run(Config, main)
