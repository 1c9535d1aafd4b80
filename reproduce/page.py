"""One self-contained page from what the tasks hand over: tables with the paper beside ours, figures, notes.

The page needs no network and no script: pictures are data URIs, the style is in the page. Its template is
`page.html.j2`, beside this file.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.files import write_whole
from harness.methods import colour, explained, known, label
from harness.report import Figure, ReportTable, Section
from harness.tables import Table
from harness.tables.aggregate import lines_of, quick, summarise, with_numbers
from reproduce.render import grid, remarks
from reproduce.summary import Comparison, comparisons, headline


def table_section(table: Table, results: Path, small: Path | None) -> Section:
    """The section of a published table: paper beside our runs on its data, then the small runs on embedded data.

    Args:
        table: The published table.
        results: Folder of the runs at the published scale.
        small: Folder of the small runs; None if there are none.
    """
    published = lines_of(table, results, "paper")
    little = quick(table)
    lines = lines_of(little, small, "quick") if small else []
    views, figures, lead = [], [], []
    shown = with_numbers(table, published)
    if shown.cells:
        views.append(_view(shown, published, "The published data"))
        figures.append(_dots(shown, published, "The published data"))
        lead.append(f"Our runs on the published data: {found}" if (found := headline(table, published)) else "")
    else:
        lead.append(f"No number yet on the published data: python -m reproduce {table.name}.")
    if lines:
        views.append(_view(little, lines, "Small, on embedded data: not comparable with the paper"))
        figures.append(_dots(little, lines, "Small, on embedded data"))
        lead.append(f"Small runs on embedded data: {found}" if (found := headline(little, lines)) else "")
    return Section(table.title, " ".join(lead), tuple(views), tuple(figures), notes=tuple(remarks(table, published)))


def summary_table(tables: Sequence[Table], results: Path, small: Path | None) -> ReportTable:
    """What there is of every table: cells with a result at the published scale, runs, and small runs."""
    rows = []
    for table in tables:
        lines = lines_of(table, results, "paper")
        cells = sum(summarise(table, cell, lines).n > 0 for cell in table.cells)
        little = len(lines_of(quick(table), small, "quick")) if small else 0
        rows.append((table.title, table.task, f"{cells} of {len(table.cells)}", str(len(lines)), str(little)))
    header = ("Table", "task", "cells run on the published data", "runs", "small runs")
    return ReportTable("What is here", header, tuple(rows))


def glances(tables: Sequence[Table], results: Path, small: Path | None) -> list[tuple[str, Comparison]]:
    """The methods side by side, on the published data and then in small runs: (where, comparison)."""
    found = [("our runs on the published data", [(table, lines_of(table, results, "paper")) for table in tables])]
    if small:
        little = [(quick(table), lines_of(quick(table), small, "quick")) for table in tables]
        found.append(("small runs on embedded data", little))
    return [(where, comparison) for where, pairs in found for comparison in comparisons(pairs)]


def write_report(
    path: Path,
    title: str,
    lead: str,
    tables: Sequence[Table],
    groups: dict[str, list[Section]],
    results: Path,
    small: Path | None,
) -> None:
    """Write the page.

    Args:
        path: Where to; its folder is made.
        title: Of the page.
        lead: What the page is, in a sentence or two.
        tables: What the summary counts.
        groups: Name of a task to its sections.
        results: Folder of the runs at the published scale.
        small: Folder of the small runs; None if there are none.
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
    methods = dict.fromkeys([*known(), *(cell.method for table in tables for cell in table.cells)])
    page = environment.get_template("page.html.j2").render(
        title=title,
        lead=lead,
        methods=explained(),
        glances=glances(tables, results, small),
        groups=groups,
        summary=summary_table(tables, results, small),
        facts=facts,
        names={method: label(method) for method in methods},
        dots={label(method): colour(method) for method in methods},
    )
    write_whole(path, page)


def _view(table: Table, lines: Sequence[dict[str, Any]], title: str) -> ReportTable:
    header, rows = grid(table, lines)
    caption = f"{table.unit}; mean ± sample standard deviation (number of seeds)"
    return ReportTable(title, header, tuple(rows), caption, table.name)


def _dots(table: Table, lines: Sequence[dict[str, Any]], title: str) -> Figure:
    from reproduce.dots import dots_png

    caption = "Ours: mean and one standard deviation over seeds."
    if len({cell.method for cell in table.cells}) > 1:
        caption += " Where the bars of two methods overlap, the seeds hardly tell them apart."
    if table.is_compared:
        caption += " Diamonds: published."
    if not table.small and any(cell.shortened for cell in table.cells):
        caption += " Pale: trained for less than published; the table says how much."
    return Figure(title, caption, dots_png(table, lines))
