"""The rows of a Parquet file as lines of CSV, so that all later steps are those of a text file.

Numbers are written with all their digits, dates in ISO 8601, durations in nanoseconds, booleans as true and false. A
missing value is an empty field. Line ends within a text become blanks, because a row is one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from harness.errors import UserError

MAGIC = b"PAR1"  # at both ends of such a file
SAMPLE = 1000  # rows that tell how long a line is


def is_parquet(path: Path) -> bool:
    """Whether a file begins like a Parquet file; False if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of polars into a `UserError`, panics included, which do not derive from `Exception`."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as Parquet ({reason}). Write the file again.") from error


def parquet_names(path: Path) -> list[str]:
    """The names of the columns, in order."""
    return list(_schema(path))


def nested_names(path: Path) -> list[str]:
    """The columns that hold lists, records or bytes: neither numbers nor categories."""
    return [name for name, kind in _schema(path).items() if not _is_plain(kind)]


def parquet_blocks(path: Path, size: int, limit: int | None) -> Iterator[tuple[bytes, int]]:
    """Lines of CSV in pieces of about `size` bytes, each with the number of its first row, counted from 1.

    Columns of nested values are left empty.

    Raises:
        UserError: the file is damaged, or cannot be read.
    """
    columns = [_as_text(name, kind) for name, kind in _schema(path).items()]
    with reading(path):
        frame = pl.scan_parquet(path, glob=False).select(columns)
        rows = frame.select(pl.len()).collect().item()
    rows = rows if limit is None else min(rows, limit)
    start, step = 0, SAMPLE
    while start < rows:
        with reading(path):
            text = frame.slice(start, min(step, rows - start)).collect().write_csv(include_header=False).encode()
        yield text, start + 1
        start, step = start + step, max(1, size * step // max(1, len(text)))


def _schema(path: Path) -> dict[str, pl.DataType]:
    with reading(path):
        return dict(pl.read_parquet_schema(path))


def _is_plain(kind: pl.DataType) -> bool:
    return not (kind.is_nested() or kind in (pl.Binary, pl.Object, pl.Unknown))


def _as_text(name: str, kind: pl.DataType) -> pl.Expr:
    if not _is_plain(kind):
        return pl.lit("").alias(name)
    if kind in (pl.String, pl.Categorical, pl.Enum):
        return pl.col(name).cast(pl.String).str.replace_all(r"[\r\n]+", " ").fill_null("")
    if isinstance(kind, pl.Duration):
        return pl.col(name).dt.total_nanoseconds()
    if kind == pl.Null:
        return pl.lit("").alias(name)
    return pl.col(name)
