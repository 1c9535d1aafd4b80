"""One self-contained page from what the tasks hand over: tables with the paper beside ours, figures, notes."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A picture of the report."""

    title: str
    caption: str
    png: bytes


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
    notes: tuple[str, ...] = field(default=())
