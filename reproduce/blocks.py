"""What the blocks of the project's Markdown files hold: a table, a benchmark's numbers, parts of either, or a program.

The name of a block is that of a table, of a file below results/ without its ending, or of a program of examples/. See
`reproduce.readme`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.tables import Table
from harness.tables.aggregate import lines_of
from reproduce import layout


def source(tables: Mapping[str, Table], results: Path, root: Path) -> Callable[[str, list[str], Path], str]:
    """The function that fills blocks, as `reproduce.readme` takes it.

    Args:
        tables: All tables, by name.
        results: The folder of results.
        root: The folder of the project, below which the files lie.
    """

    def text(name: str, parts: list[str], asking: Path) -> str:
        written = results / f"{name}.md"
        if name.startswith("examples/") and (root / name).exists():
            return f"```python\n{(root / name).read_text(encoding='utf-8').strip()}\n```"
        if name in tables:
            return _of_table(tables[name], parts, asking, results, root)
        if parts and written.with_suffix(".json").exists():
            return _of_measurements(written.with_suffix(".json"), parts, asking, root)
        if written.exists():
            return written.read_text(encoding="utf-8")
        raise UserError(
            f"{asking} has a block for '{name}', which is neither a table nor the file {written}. The tables are: "
            f"{', '.join(tables)}."
        )

    return text


def _of_table(table: Table, parts: list[str], asking: Path, results: Path, root: Path) -> str:
    """The whole table below an anchor of its name, or its excerpt."""
    lines = lines_of(table, results, "paper")
    if not parts:
        return f'<a id="{table.name}"></a>\n\n{layout.markdown(table, lines)}'
    whole = os.path.relpath(root / table.task / "RESULTS.md", asking.parent)
    return layout.excerpt(table, lines, parts, f"{whole}#{table.name}")


def _of_measurements(path: Path, parts: list[str], asking: Path, root: Path) -> str:
    """Some rows and columns of what a benchmark measured."""
    measured = json.loads(path.read_text(encoding="utf-8"))
    about = measured["environment"]
    whole = os.path.relpath(root / "benchmarks" / "README.md", asking.parent)
    threads = f"{about['threads']} thread{'s' if about['threads'] != '1' else ''}"
    machine = f"{about['device']}, {threads}, torch {about['torch']}, {about['date']}"
    table = layout.piped(*_chosen(measured["rows"], parts, path))
    return "\n".join([*table, "", f"Measured on {machine}. [All that was measured]({whole})."])


def _chosen(rows: Sequence[Mapping[str, Any]], parts: list[str], path: Path) -> tuple[list[str], list[list[str]], int]:
    """Header and rows with the columns that are named, of the rows in which a text matches one of the other parts.

    Returns:
        Header, rows, and how many columns hold texts.

    Raises:
        UserError: a part is no column, and matches no row.
    """
    columns = [name for name in rows[0] if name in parts] or list(rows[0])
    patterns = [part for part in parts if part not in rows[0]]
    texts = [[str(value) for value in row.values() if isinstance(value, str)] for row in rows]
    for pattern in patterns:
        if not any(fnmatchcase(text, pattern) for found in texts for text in found):
            raise UserError(f"no column and no row of {path} is called '{pattern}'. The columns: {', '.join(rows[0])}.")
    kept = [
        ["" if row[name] is None else str(row[name]) for name in columns]
        for row, found in zip(rows, texts, strict=True)
        if not patterns or any(fnmatchcase(text, pattern) for text in found for pattern in patterns)
    ]
    return columns, kept, sum(isinstance(rows[0][name], str) for name in columns)
