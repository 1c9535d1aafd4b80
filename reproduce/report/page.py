"""One self-contained page: the scoreboard, all tables at a glance, the best pictures, and everything else folded.

The page needs no network and no script: pictures are data URIs, the style is in the page. Its template is
`page.html.j2`, beside this file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.files import write_whole
from harness.methods import colour, explained, label
from harness.report import Figure, Section
from harness.tables import Table
from reproduce.report.board import board
from reproduce.report.parts import Part, overview, part, what_was_run
from reproduce.scoreboard.tables import ROWS

TASKS = {
    "graphs": "Citation graphs",
    "recsys": "Click-through prediction",
    "nlp": "Language model",
    "nerf": "Radiance fields",
    "vision": "Small networks",
}
DRAWN = ("BP", "DFA", "Shallow")  # rules that have a diagram


@dataclass(frozen=True)
class Group:
    """A task's part of the report."""

    name: str
    title: str
    front: tuple[Figure, ...]  # its best pictures
    sections: tuple[Section, ...]  # of the task's own, without these
    parts: tuple[Part, ...]  # its published tables


def group(task: str, sections: Sequence[Section], tables: Sequence[Table], results: Path, small: Path | None) -> Group:
    """The part of a task.

    Args:
        task: Its folder.
        sections: What it adds to the report.
        tables: Its published tables; those that a section shows are left to it.
        results: Folder of the runs at the published scale.
        small: Folder of the small runs; None if there are none.
    """
    front = tuple(figure for section in sections for figure in section.figures if figure.front)
    rest = [replace(s, figures=tuple(figure for figure in s.figures if not figure.front)) for s in sections]
    covered = {view.name for section in sections for view in section.tables}
    parts = tuple(part(table, results, small) for table in tables if table.name not in covered)
    return Group(task, TASKS.get(task, task.capitalize()), front, tuple(rest), parts)


def write_report(
    path: Path,
    title: str,
    lead: str,
    tables: Sequence[Table],
    sections: Mapping[str, Sequence[Section]],
    results: Path,
    small: Path | None,
    yours: Sequence[Part] = (),
) -> None:
    """Write the page.

    Args:
        path: Where to; its folder is made.
        title: Of the page.
        lead: What the page is, in a sentence or two.
        tables: The published tables that are shown.
        sections: Name of a task to what it adds of its own.
        results: Folder of the runs at the published scale.
        small: Folder of the small runs; None if there are none.
        yours: Tables with the runs of whoever has the report made, to open the page with.
    """
    import jinja2

    from harness.tables.results import commit, versions

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    facts: dict[str, Any] = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit() or "unknown",
        "python": versions()["python"],
    }
    sentences = dict(explained())
    page = environment.get_template("page.html.j2").render(
        title=title,
        lead=lead,
        drawn={name: sentences.pop(name) for name in DRAWN if name in sentences},
        others=sentences,
        yours=yours,
        board=board(results),
        overview=overview(tables, results),
        groups=[
            group(task, own, [table for table in tables if table.task == task], results, small)
            for task, own in sections.items()
        ],
        summary=what_was_run(tables, results, small),
        facts=facts,
        dots=dots(tables),
    )
    write_whole(path, page)


def dots(tables: Sequence[Table]) -> dict[str, str]:
    """The colour of every method of the scoreboard and of the tables, by its label."""
    methods = [*ROWS, *(cell.method for table in tables for cell in table.cells)]
    return {label(method): colour(method) for method in methods}
