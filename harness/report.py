"""One self-contained page from what the tasks hand over: tables with the paper beside ours, figures, notes.

The page needs no network and no script: pictures are data URIs, the style is in the page. Its template is
`report.html.j2`, beside this file.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.aggregate import quick, summarise
from harness.errors import writing
from harness.execute import lines_of
from harness.render import METHODS, grid, is_small, remarks
from harness.tables import Table


@dataclass(frozen=True)
class Figure:
    """A picture of the report; `png` is shown at half its pixels. `harness.figures` draws some kinds."""

    title: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """Width on the page, in CSS pixels: bytes 16 to 20 of a PNG hold its width."""
        return int.from_bytes(self.png[16:20], "big") // 2


@dataclass(frozen=True)
class ReportTable:
    """A table of the report. `name` is that of the published table it shows, if it shows one."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    name: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the report, as a task's `sections(results_dir, context)` returns them.

    Published tables need no work: `reproduce` adds paper-beside-ours for every table in TABLES that no section shows.
    """

    title: str
    lead: str = ""
    tables: tuple[ReportTable, ...] = ()
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()


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
    views, figures = [_view(table, published, "The published data")], []
    if published or any(cell.published is not None for cell in table.cells):
        figures.append(_dots(table, published, "The published data"))
    if lines:
        views.append(_view(little, lines, "Small, on embedded data: not comparable with the paper"))
        figures.append(_dots(little, lines, "Small, on embedded data"))
    lead = " ".join(["In " + table.unit + ".", headline(table, published), headline(little, lines)])
    return Section(table.title, lead, tuple(views), tuple(figures), tuple(remarks(table, published)))


def headline(table: Table, lines: Sequence[dict[str, Any]]) -> str:
    """One sentence that compares the methods: means over the cells that every method has a number for."""
    methods = list(dict.fromkeys(cell.method for cell in table.cells))
    found: dict[tuple[str, str], dict[str, float]] = {}
    for cell in table.cells:
        mean = summarise(table, cell, lines).mean
        if mean is not None:
            found.setdefault((cell.row, cell.column), {})[cell.method] = mean
    whole = [means for means in found.values() if len(means) == len(methods)]
    if len(methods) < 2 or not whole or len({cell.metric for cell in table.cells}) > 1:
        return ""
    means = [(METHODS.get(m, m), sum(each[m] for each in whole) / len(whole)) for m in methods]
    numbers = ", ".join(f"{name} {mean:.{table.decimals}f}" for name, mean in means)
    where = "small runs on embedded data" if is_small(table) else "our runs on the published data"
    return f"In {where}, averaged over {len(whole)} {'cells' if len(whole) > 1 else 'cell'}: {numbers}."


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


def tiles(tables: Sequence[Table], results: Path, small: Path | None) -> list[tuple[str, str]]:
    """The size of it in a few numbers: (number, what it counts)."""
    lines = [line for table in tables for line in lines_of(table, results, "paper")]
    little = [line for table in tables for line in (lines_of(quick(table), small, "quick") if small else [])]
    minutes = sum(line["result"].get("seconds") or 0 for line in lines + little) / 60
    time = f"{minutes / 60:.1f}" if minutes > 90 else f"{minutes:.1f}"
    unit = "hours of training" if minutes > 90 else "minutes of training"
    return [
        (str(len(tables)), "published tables"),
        (str(sum(len(table.cells) for table in tables)), "numbers to reproduce"),
        (str(len(lines)), "runs on the published data"),
        (str(len(little)), "small runs on embedded data"),
        (time, unit),
    ]


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

    from harness.figures import COLOURS
    from harness.results import commit, versions

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    facts: dict[str, Any] = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit() or "unknown",
        "python": versions()["python"],
    }
    dots = {METHODS.get(method, method): colour for method, colour in COLOURS.items()}
    template = environment.get_template("report.html.j2")
    page = template.render(
        title=title,
        lead=lead,
        tiles=tiles(tables, results, small),
        summary=summary_table(tables, results, small),
        groups=groups,
        facts=facts,
        dots=dots,
    )
    temporary = path.with_name(path.name + ".tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, path)


def _view(table: Table, lines: Sequence[dict[str, Any]], title: str) -> ReportTable:
    header, rows = grid(table, lines)
    caption = "mean ± sample standard deviation (number of seeds)"
    return ReportTable(title, header, tuple(rows), caption, table.name)


def _dots(table: Table, lines: Sequence[dict[str, Any]], title: str) -> Figure:
    from harness.figures import dots_png

    caption = "Dots: ours, with one standard deviation."
    if any(cell.published is not None for cell in table.cells):
        caption += " Diamonds: published."
    return Figure(title, caption, dots_png(table, lines))
