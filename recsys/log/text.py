"""A table as blocks of whole lines: a text file is cut into blocks, a Parquet file is written as CSV.

A byte order mark at the start of a file is skipped.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from harness.errors import UserError
from recsys.log.formats import RowFormat
from recsys.log.parquet import is_parquet, parquet_blocks, parquet_names

BLOCK_BYTES = 1 << 25  # about 140,000 rows of Criteo
LONGEST_LINE = 1 << 20  # bytes; a longer one means that this is not a text file
SEPARATORS = (",", ";", "\t", "|")  # of a user's table
ARCHIVES = ((b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"BZh", "bzip2"), (b"\xfd7zX", "xz"))


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file."""

    text: bytes
    first_line: int  # its number in the file, from 1

    @cached_property
    def lines(self) -> int:
        """How many they are."""
        return self.text.count(b"\n")


def table_blocks(path: Path, layout: RowFormat, size: int = BLOCK_BYTES, limit: int | None = None) -> Iterator[Block]:
    """The rows of a table, without its header, in blocks of about `size` bytes.

    Args:
        path: A text file, or a Parquet file where the layout allows one.
        layout: What its lines hold.
        size: Bytes of a block.
        limit: Stop after this many lines; None: read all.

    Raises:
        UserError: the file cannot be read, or has another format.
    """
    if layout.own and is_parquet(path):
        return (Block(text, row) for text, row in parquet_blocks(path, size, limit))
    blocks = read_blocks(path, size, limit, layout.header)
    return (_in_utf8(block, path) for block in blocks) if layout.own else blocks


def table_header(path: Path, layout: RowFormat) -> tuple[list[str], str]:
    """The names of a table's columns, and the separator of its lines.

    Raises:
        UserError: the file cannot be read, or its first line cannot be a header.
    """
    if layout.own and is_parquet(path):
        return parquet_names(path), ","
    first = next(read_blocks(path, size=1, limit=1), None)
    if first is not None and layout.own:
        _in_utf8(first, path)
    return header_names("" if first is None else first.text.decode("utf-8", "replace"), layout, path)


def header_names(line: str, layout: RowFormat, origin: Path | str) -> tuple[list[str], str]:
    """The names in the first line of a table, read as CSV, and the separator between them.

    The separator of a user's table is the one of `SEPARATORS` that gives the most columns.

    Raises:
        UserError: a quote is not closed.

    Example:
        >>> from recsys.datasets.adult import LAYOUT
        >>> header_names('age, "native, country" ,income', LAYOUT, "my.csv")
        (['age', 'native, country', 'income'], ',')
    """
    line = line.removeprefix("\ufeff").rstrip("\r\n")
    names: list[str] = []
    best, fault = layout.separator, ""
    for separator in SEPARATORS if layout.own else (layout.separator,):
        try:
            rows = list(csv.reader([line + "\n", "next"], delimiter=separator, skipinitialspace=True))
        except csv.Error as error:
            fault = fault or str(error)
            continue
        if len(rows) != 2:  # an open quote takes the next line in
            fault = fault or "a quote is not closed on its line"
        elif len(rows[0]) > len(names):
            names, best = rows[0], separator
    if fault and not names:
        raise UserError(f"{origin}, line 1: this is not a header ({fault}). Give a line of column names.")
    return [name.strip() for name in names], best


def read_blocks(path: Path, size: int = BLOCK_BYTES, limit: int | None = None, header: bool = False) -> Iterator[Block]:
    """The lines of a text file, in blocks of about `size` bytes.

    Args:
        path: The file.
        size: Bytes of a block, which ends with the line that reaches this size.
        limit: Stop after this many lines; None: read all.
        header: Leave out the first line.

    Raises:
        UserError: the file cannot be read, is compressed or in UTF-16, or has no line ends.
    """
    line, left = 1, limit
    try:
        with open(path, "rb") as file:
            _refuse_other_kinds(path, file.peek(4))
            if file.peek(3).startswith(codecs.BOM_UTF8):
                file.read(3)
            if header:
                file.readline(LONGEST_LINE)
                line = 2
            while (left is None or left > 0) and (text := file.read(size)):
                text += file.readline(LONGEST_LINE + 1)
                if not text.endswith(b"\n"):
                    text += b"\n"
                _refuse_long_lines(path, text)
                if left is not None:
                    text = _first_lines(text, left)
                    left -= text.count(b"\n")
                block = Block(text, line)
                yield block
                line += block.lines
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}. Check the path and its permissions."
        ) from error


def _in_utf8(block: Block, path: Path) -> Block:
    """The block, checked: in another encoding, different categories could become one, and numbers unreadable.

    Raises:
        UserError: it is not valid UTF-8, or has zero bytes.
    """
    try:
        if (place := block.text.find(b"\0")) < 0:
            block.text.decode()
            return block
        what = "a zero byte, so this is not UTF-8 text; perhaps it is UTF-16"
    except UnicodeDecodeError as error:
        place, what = error.start, f"byte 0x{block.text[error.start]:02x}, which is not UTF-8"
    line = block.first_line + block.text.count(b"\n", 0, place)
    raise UserError(
        f"{path}, line {line}: {what}. Save the table as UTF-8, for example by iconv -f ENCODING -t utf-8 (a table "
        "from Western Europe is often in windows-1252)."
    )


def _first_lines(text: bytes, count: int) -> bytes:
    """The first `count` lines."""
    if text.count(b"\n") <= count:
        return text
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n"))
    return text[: ends[count - 1] + 1]


def _refuse_long_lines(path: Path, text: bytes) -> None:
    """Raise for a line longer than `LONGEST_LINE`, skipping runs of shorter lines at once."""
    start = 0
    while start < len(text):
        end = text.rfind(b"\n", start, start + LONGEST_LINE + 1)
        if end < 0:
            raise UserError(
                f"{path}: a line is longer than {LONGEST_LINE} bytes, so this is not a click log. Give the text file."
            )
        start = end + 1


def _refuse_other_kinds(path: Path, start: bytes) -> None:
    for magic, kind in ARCHIVES:
        if start.startswith(magic):
            raise UserError(f"{path} is a {kind} archive. Unpack it and give the text file in it.")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path} is UTF-16 text (it has that byte order mark). Save it as UTF-8.")
    if start.startswith(b"PAR1"):
        raise UserError(f"{path} is a Parquet file. Give a text file instead; only --table takes either.")
