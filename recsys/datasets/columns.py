"""What the columns of a table hold, from all of its rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from harness.errors import UserError
from recsys.log.formats import SKIPPED, RowFormat
from recsys.log.rows import Malformed, read_text
from recsys.log.text import table_blocks

MOST_LABELS = 1000  # different values of a label
COMMAS = r"^[+-]?\d+(,\d+)+$"  # a number with a decimal comma, or with one at every thousand


@dataclass
class Column:
    """How many values of each kind a column has; missing values are not counted."""

    values: int = 0
    numbers: int = 0  # finite ones
    commas: int = 0  # numbers with commas
    text: str = ""  # the first value that is not a number


@dataclass
class Table:
    """What `scan` found."""

    rows: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)  # how often each value of the label occurs; missing: ""


def scan(path: Path, layout: RowFormat, limit: int | None = None) -> Table:
    """Read a table once. Malformed lines are skipped; reading the table for training reports them.

    Raises:
        UserError: the file cannot be read, has no rows, or its label has too many values.
    """
    names = [name for name in layout.columns if not name.startswith(SKIPPED)]
    found = Table(columns={name: Column() for name in names})
    first: Malformed | None = None
    for block in table_blocks(path, layout, limit=limit):
        frame, _, malformed = read_text(block, layout)
        first = first or next(iter(malformed), None)
        found.rows += len(frame)
        found.labels.update(dict(frame[layout.label].value_counts().iter_rows()))
        _refuse_many_labels(path, layout.label, found.labels)
        for name in names:
            _count(found.columns[name], frame[name])
    if not found.rows:
        why = f"; line {first.line} is malformed: {first.reason}" if first else ""
        raise UserError(f"{path} has no rows{why}. Give a table with a line of column names and one row a line.")
    return found


def _count(column: Column, text: pl.Series) -> None:
    """Add the values of some more rows."""
    text = text.filter(text != "")
    numbers = text.cast(pl.Float64, strict=False)
    finite = numbers.is_finite().fill_null(False)
    others = text.filter(~finite)
    column.values += len(text)
    column.numbers += int(finite.sum())
    column.commas += int(others.str.contains(COMMAS).sum())
    if not column.text and len(others):
        column.text = others[0]


def _refuse_many_labels(path: Path, label: str, labels: Counter[str]) -> None:
    if len(labels) > MOST_LABELS:
        raise UserError(
            f"{path}: --label {label} has more than {MOST_LABELS} different values, so it cannot be the label. Name "
            "another column."
        )
