"""A table as text: paper beside ours, one line per row and method; its notes; where its numbers come from.

Runs are ours, those that come with the project, or yours: those of somebody who repeats them.
"""

import json
from collections.abc import Sequence
from typing import Any

from harness.methods import label
from harness.tables import Cell, Table
from harness.tables.aggregate import RunKey, Summary, key_of, summarise
from harness.tables.results import PLACES, given

NOTHING = "–"
Lines = Sequence[dict[str, Any]]


def by_owner(lines: Lines, yours: Lines) -> dict[str, Lines]:
    """The runs that are shown, by whose they are: ours alone unless there are others.

    Example:
        >>> list(by_owner([{"seed": 0}], [])), list(by_owner([{"seed": 0}], [{"seed": 0}])), list(by_owner([], [{}]))
        (['ours'], ['yours', 'ours'], ['yours'])
    """
    if not yours:
        return {"ours": lines}
    return {"yours": yours, "ours": lines} if lines else {"yours": yours}


def grid(table: Table, lines: Lines, yours: Lines = ()) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of `table` with the numbers of `lines`, and beside them those of `yours` if there are any.

    A column with published numbers has a place for them before ours.
    """
    runs = by_owner(lines, yours)
    columns = list(dict.fromkeys(cell.column for cell in table.cells))
    compared = {cell.column for cell in table.cells if cell.published is not None}
    cells = {(cell.row, cell.method, cell.column): cell for cell in table.cells}
    header = ["", "method"]
    for column in columns:
        owners = [f"{column}, {owner}" for owner in runs] if column in compared or len(runs) > 1 else [column]
        header += [f"{column}, paper", *owners] if column in compared else owners
    rows = []
    for row, method in dict.fromkeys((cell.row, cell.method) for cell in table.cells):
        texts: list[str] = []
        for column in columns:
            cell = cells.get((row, method, column))
            texts += [published(table, cell)] if column in compared else []
            texts += ["" if cell is None else number(table, cell, some) for some in runs.values()]
        rows.append((row, label(method), *texts))
    return tuple(header), rows


def remarks(table: Table, lines: Lines, yours: Lines = ()) -> list[str]:
    """Source, gaps, notes of the table, and where our numbers and yours come from."""
    runs = by_owner(lines, yours)
    found = [_origin(table, yours)]
    compared = {cell.column for cell in table.cells if cell.published is not None}
    if any(cell.published is None and cell.column in compared for cell in table.cells):
        found.append(f"{NOTHING} under paper: no number is known.")
    for owner, some in runs.items():
        missing = sum(summarise(table, cell, some).n == 0 for cell in table.cells)
        among = f" among {owner}" if table.is_compared or len(runs) > 1 else ""
        if missing:
            found.append(f"{NOTHING}{among}: not run yet ({missing} of {len(table.cells)} cells).")
        if mixed := mixed_cells(some):
            what = "Runs" if len(runs) == 1 else f"{owner.capitalize()}: runs"
            found.append(
                f"{what} made with different settings are averaged in: {', '.join(mixed)}. Delete the old lines."
            )
    return found + list(table.notes) + [provenance(some, owner) for owner, some in runs.items() if some]


def _origin(table: Table, yours: Lines = ()) -> str:
    """Where the numbers to compare with come from, or why there are none."""
    if table.small:
        what = "Small runs" if table.is_ours else f"Small runs of {table.source}"
        return f"{what}, on embedded data: not comparable with the published numbers."
    if table.is_ours:
        return f"{table.source[0].upper()}{table.source[1:]}."
    if table.is_compared:
        return f"Published numbers: {table.source}."
    return f"{table.source}: no number of it is known, so all shown are ours{' and yours' if yours else ''}."


def mixed_cells(lines: Lines) -> list[str]:
    """Cells whose runs differ in more than the seed, because a preset changed after some of them were made."""
    settings: dict[RunKey, set[str]] = {}
    names: dict[RunKey, str] = {}
    for line in lines:
        config = line["result"].get("config") or {}
        deciding = {name: value for name, value in given(config).items() if name not in PLACES and name != "seed"}
        cell = (*key_of(line)[:3], 0)
        names[cell] = f"{line['row']} {label(line['method'])} on {line['dataset']}"
        settings.setdefault(cell, set()).add(json.dumps(deciding, sort_keys=True))
    return [names[cell] for cell, found in settings.items() if len(found) > 1]


def provenance(lines: Lines, owner: str = "ours") -> str:
    """Where the numbers of `lines` come from: whose they are, runs, time, hardware, versions, commits."""
    results = [line["result"] for line in lines]
    minutes = sum(result.get("seconds") or 0 for result in results) / 60
    devices = ", ".join(_distinct(result.get("device") for result in results))
    torch = ", ".join(_distinct((result.get("versions") or {}).get("torch") for result in results))
    commits = ", ".join(_distinct(result.get("commit") for result in results))
    runs = f"{len(lines)} run{'s' if len(lines) > 1 else ''}, {minutes:.1f} minutes in all, on {devices}"
    return f"{owner.capitalize()}: {runs}; torch {torch or 'unknown'}; commit {commits or 'unknown'}."


def number(table: Table, cell: Cell, lines: Lines, usual: int = 0) -> str:
    """What is shown for a cell of ours, such as "81.5 ± 0.4 (10)", or "9.34 (1 seed, 1 of 100 epochs)".

    Args:
        table: The cell's.
        cell: The cell.
        lines: The table's runs.
        usual: A number of seeds that is not said.
    """
    found: Summary = summarise(table, cell, lines)
    failed = f"{found.failed} not finite" if found.failed else ""
    if found.mean is None:
        return f"{NOTHING} ({failed})" if failed else NOTHING
    spread = "" if found.std is None else f" ± {found.std:.{table.decimals}f}"
    shortened = "" if table.small else cell.shortened
    seeds = f" seed{'s' if found.n > 1 else ''}" if shortened else ""
    count = f"{found.n}{seeds}" if failed or found.n != usual else ""
    said = ", ".join(filter(None, (count, failed, shortened)))
    return f"{found.mean:.{table.decimals}f}{spread}{f' ({said})' if said else ''}"


def published(table: Table, cell: Cell | None) -> str:
    """The published number of a cell; blank where the table has no such cell."""
    if cell is None:
        return ""
    return NOTHING if cell.published is None else f"{cell.published:.{table.decimals}f}"


def _distinct(values: Any) -> list[str]:
    return sorted({str(value) for value in values if value})
