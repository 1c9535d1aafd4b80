"""Reading a large text file of impressions: whole lines in blocks, columns with types, bad rows found and named.

polars does the parsing. It would fill up a line with too few columns without a word, so the separators of a block are
counted as well: polars refuses lines with too many, hence if the total is right no line has too few. A block in which
anything is wrong is parsed again, slowly, to find out which lines it is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from harness.errors import UserError
from recsys.formats import NUMBER, WHOLE, RowFormat, Rule

BLOCK_BYTES = 1 << 25  # about 140,000 rows of Criteo
LONGEST_LINE = 1 << 20  # bytes; a longer one means that this is no text file
SINGLE = b"\x1f"  # stands for a separator of several characters: polars takes one


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file."""

    text: bytes
    first_line: int  # its number in the file, from 1


@dataclass(frozen=True)
class Malformed:
    """A line that was skipped, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Rows:
    """The good rows of a block."""

    frame: pl.DataFrame  # a column per field: text, "" if missing, or Float64, null if missing
    labels: np.ndarray | None  # uint8 [n], 1 = click; None if the lines have no label
    lines: np.ndarray  # int64 [n], the number of each row's line
    malformed: list[Malformed]


def read_blocks(path: Path, size: int = BLOCK_BYTES, limit: int | None = None, header: bool = False) -> Iterator[Block]:
    """The lines of a file, in blocks of about `size` bytes.

    Args:
        path: The file.
        size: Bytes of a block; it ends with the line in which they are reached.
        limit: Stop after that many lines; None: at the end.
        header: Leave out the first line.

    Raises:
        UserError: the file cannot be read, is compressed, or has no line ends.
    """
    line, left = 1, limit
    try:
        with open(path, "rb") as file:
            _refuse_compressed(path, file.peek(4))
            if header:
                file.readline()
                line = 2
            while (left is None or left > 0) and (text := file.read(size)):
                text += file.readline(LONGEST_LINE + 1)
                if not text.endswith(b"\n"):
                    text += b"\n"
                _refuse_long_lines(path, text)
                if left is not None:
                    text = _first_lines(text, left)
                    left -= text.count(b"\n")
                yield Block(text, line)
                line += text.count(b"\n")
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror or error}. Check the path and its permissions."
        ) from error


def header_line(path: Path) -> str:
    """The first line of a file.

    Raises:
        UserError: it cannot be read.
    """
    first = next(read_blocks(path, size=1, limit=1), None)
    return "" if first is None else first.text.decode("utf-8", "replace")


def parse(block: Block, layout: RowFormat) -> Rows:
    """The rows of a block whose lines have the columns of `layout`."""
    text = block.text
    if layout.spaced:
        text = text.replace(layout.separator.encode() + b" ", layout.separator.encode())
    if len(layout.separator) > 1:
        text = text.replace(layout.separator.encode(), SINGLE)
    separator = _single(layout)
    separators = np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord(separator))  # bytes.count takes longer
    if separators == (len(layout.columns) - 1) * text.count(b"\n"):
        try:
            frame = _read_csv(text, layout, separator, typed=True)
        except (pl.exceptions.ComputeError, pl.exceptions.SchemaError):
            pass  # found again, line by line
        else:
            rows, wrong = _checked(frame, layout, np.arange(block.first_line, block.first_line + len(frame)))
            if not wrong:
                return rows
    return _parse_slowly(text, layout, separator, block.first_line)


def _parse_slowly(text: bytes, layout: RowFormat, separator: str, first_line: int) -> Rows:
    """Like `parse`, for a block with bad rows, comments, blank lines, or bytes that are not UTF-8."""
    good, numbers, malformed = [], [], []
    for number, line in enumerate(text.split(b"\n")[:-1], first_line):
        if not line.strip() or (layout.comment and line.startswith(layout.comment.encode())):
            continue
        columns = line.count(separator.encode()) + 1
        if columns == len(layout.columns):
            good.append(line)
            numbers.append(number)
        else:
            malformed.append(Malformed(number, f"{columns} columns instead of {len(layout.columns)}"))
    joined = b"".join(line + b"\n" for line in good).decode("utf-8", "replace").encode()
    frame = _read_csv(joined, layout, separator, typed=False)
    reasons: dict[int, str] = {}
    for name, rule in reversed(layout.fields):
        if rule in NUMBER:
            values = frame[name].cast(pl.Float64, strict=False)
            bad = (values.is_null() & (frame[name] != "")) | _not_a(rule, values)
            kind = "whole number" if rule in WHOLE else "number"
            reasons |= {place: f"{name} is {frame[name][place]!r}, not a {kind}" for place in bad.arg_true().to_list()}
            frame = frame.with_columns(values)
    if layout.label in layout.columns:
        unknown = ~frame[layout.label].is_in([*layout.clicks, *layout.misses])
        allowed = " or ".join((*layout.clicks, *layout.misses))
        reasons |= {
            place: f"{layout.label} is {frame[layout.label][place]!r}, not {allowed}"
            for place in unknown.arg_true().to_list()
        }
    malformed += [Malformed(numbers[place], reason) for place, reason in reasons.items()]
    keep = np.ones(len(frame), dtype=bool)
    keep[list(reasons)] = False
    rows, _ = _checked(frame.filter(keep), layout, np.array(numbers, dtype=np.int64)[keep])
    return replace(rows, malformed=sorted(malformed, key=lambda bad: bad.line))


def _read_csv(text: bytes, layout: RowFormat, separator: str, typed: bool) -> pl.DataFrame:
    """The columns of the lines; numbers as Float64 (null if missing) if `typed`, everything else as text."""
    rules = dict(layout.fields)
    schema = {name: pl.Float64 if typed and rules.get(name) in NUMBER else pl.String for name in layout.columns}
    if not text:
        return pl.DataFrame(schema=schema)
    frame = pl.read_csv(
        io.BytesIO(text),
        has_header=False,
        separator=separator,
        quote_char=None,
        schema=schema,
        empty_string_is_null=False,
        null_values=list(layout.missing) or None,
    )
    return frame.with_columns(pl.col(pl.String).fill_null("")) if layout.missing else frame


def _checked(frame: pl.DataFrame, layout: RowFormat, lines: np.ndarray) -> tuple[Rows, bool]:
    """Fields and labels of typed columns from these lines, and whether any of them is not what it should be."""
    wrong = any(bool(_not_a(rule, frame[name]).any()) for name, rule in layout.fields if rule in NUMBER)
    labels = None
    if layout.label in layout.columns:
        column = frame[layout.label]
        clicked = column.is_in(layout.clicks)
        wrong = wrong or not bool((clicked | column.is_in(layout.misses)).all())
        labels = clicked.cast(pl.UInt8).to_numpy()
    return Rows(frame.select(layout.names), labels, lines, []), wrong


def _not_a(rule: Rule, values: pl.Series) -> pl.Series:
    """Where a number is not what the rule needs: finite, and whole if it says so; a missing one is fine."""
    bad = ~values.is_finite()
    if rule in WHOLE:
        bad = bad | (values != values.floor())
    return bad.fill_null(False)


def _single(layout: RowFormat) -> str:
    """The separator once those of several characters have been replaced."""
    return layout.separator if len(layout.separator) == 1 else SINGLE.decode()


def _first_lines(text: bytes, count: int) -> bytes:
    """The first `count` lines."""
    if text.count(b"\n") <= count:
        return text
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n"))
    return text[: ends[count - 1] + 1]


def _refuse_long_lines(path: Path, text: bytes) -> None:
    """Raise for a line above `LONGEST_LINE`; whole stretches of shorter lines are skipped at once."""
    start = 0
    while start < len(text):
        end = text.rfind(b"\n", start, start + LONGEST_LINE + 1)
        if end < 0:
            raise UserError(
                f"{path}: a line is longer than {LONGEST_LINE} bytes, so this is no click log. Give the text file."
            )
        start = end + 1


def _refuse_compressed(path: Path, start: bytes) -> None:
    for magic, kind in ((b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"BZh", "bzip2"), (b"\xfd7zX", "xz")):
        if start.startswith(magic):
            raise UserError(f"{path} is a {kind} archive. Unpack it and give the text file that is in it.")
