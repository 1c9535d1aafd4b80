"""Run the table behind docs/what-to-try.md, and write it down: `python -m reproduce.advice`.

Runs that are done are kept in <out>/advice/what-to-try.jsonl and not repeated; ours are in results/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import cli
from harness.errors import UserError
from harness.files import write_whole
from harness.tables import RunContext, Table
from harness.tables.aggregate import lines_of, summarise
from reproduce import execute, progress
from reproduce.advice.tables import WHAT_TO_TRY
from reproduce.render import remarks
from reproduce.runs import OUT, make_folder


@dataclass(frozen=True, kw_only=True)
class Config:
    """A Transformer of three blocks by DFA, changed in one way at a time."""

    seeds: int = 1
    """Runs of every cell, with seeds 0, 1, ..."""
    scale: Literal["paper", "quick"] = "paper"
    """quick: a few steps, to see that it runs."""
    jobs: int | None = None
    """Worker processes of one thread each; as many as there are cores if left out."""
    out: Path = OUT
    """Folder for your runs and their table. With results they are added to ours."""


def main(config: Config) -> None:
    """Run what is missing, and write the table; status 1 if a run failed, 2 if the user can mend that."""
    if config.seeds < 1:
        raise UserError(f"--seeds {config.seeds}: must be at least 1.")
    make_folder(config.out)
    context = RunContext(scale=config.scale)
    jobs = execute.pending(WHAT_TO_TRY, config.seeds, config.out, context)
    failures = progress.run_jobs(jobs, {WHAT_TO_TRY.name: WHAT_TO_TRY}, config.out, config.jobs)
    path = WHAT_TO_TRY.path(config.out).with_suffix(".md")
    write_whole(path, markdown(WHAT_TO_TRY, lines_of(WHAT_TO_TRY, config.out, context.label)))
    print(path)
    progress.end(failures)


def markdown(table: Table, lines: Sequence[dict[str, Any]]) -> str:
    """The table with a row a variant and a column a rate; the best rate of a row is bold."""
    columns = list(dict.fromkeys(cell.column for cell in table.cells))
    text = [f"**{table.title}** ({table.unit})", "", "| | " + " | ".join(columns) + " |"]
    text.append("| --- |" + " ---: |" * len(columns))
    for row in dict.fromkeys(cell.row for cell in table.cells):
        found = [summarise(table, cell, lines) for cell in table.cells if cell.row == row]
        best = min((summary.mean for summary in found if summary.mean is not None), default=None)
        shown = ["–" if s.mean is None else f"{s.mean:.{table.decimals}f}" for s in found]
        cells = [
            f"**{word}**" if s.mean == best and best is not None else word for s, word in zip(found, shown, strict=True)
        ]
        text.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join([*text, "", *(f"- {note}" for note in remarks(table, lines))]) + "\n"


if __name__ == "__main__":
    cli.run(Config, main)
