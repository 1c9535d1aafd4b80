"""From lines of text to typed columns; malformed rows are found and reported.

A line is read as Python's `csv` reads it: a value may be quoted, a quoted value may hold separators, and a doubled
quote stands for one. There are two differences. A row is one line, so a quoted value ends on its line. Blanks around a
number are stripped, and in a `spaced` format also those around text. How a row is read does not depend on the rest of
its block.

polars parses blocks of plain lines. It pads a line with too few columns silently, so the separators of the block are
counted first: polars refuses lines with too many columns, so if the total is right, no line has too few. Any other
block is read line by line.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recsys.log.formats import NUMBER, WHOLE, RowFormat, Rule
from recsys.log.text import Block

SINGLE = "\x1f"  # stands for a separator of several characters: polars takes one
CONTROL = ("\0", SINGLE)  # never part of a text
BLANKS = (" ", "\t")
LONGEST_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class Malformed:
    """A line that was skipped, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Rows:
    """The well-formed rows of a block."""

    frame: pl.DataFrame  # a column per field: text, "" if missing, or Float64, null if missing
    labels: np.ndarray | None  # uint8 [n], 1 = click; None if the lines have no label
    lines: np.ndarray  # int64 [n], the number of each row's line
    malformed: list[Malformed]


def parse(block: Block, layout: RowFormat) -> Rows:
    """The rows of a block whose lines have the columns of `layout`."""
    frame, lines, malformed = read_text(block, layout)
    rules = dict(layout.fields)
    typed = frame.with_columns(
        pl.col(name).cast(pl.Float64, strict=False) for name, rule in rules.items() if rule in NUMBER
    )
    faults = _faults(frame, typed, layout)
    malformed += [Malformed(int(lines[place]), reason) for place, reason in faults.items()]
    if faults:
        keep = np.ones(len(frame), dtype=bool)
        keep[list(faults)] = False
        typed, lines = typed.filter(keep), lines[keep]
    labels = None
    if layout.label in layout.columns:
        labels = typed[layout.label].is_in(layout.clicks).cast(pl.UInt8).to_numpy()
    return Rows(typed.select(layout.names), labels, lines, sorted(malformed, key=lambda bad: bad.line))


def read_text(block: Block, layout: RowFormat) -> tuple[pl.DataFrame, np.ndarray, list[Malformed]]:
    """All columns of a block as text ("" if missing), the line number of each row, and the malformed lines."""
    frame = _read_whole(block, layout)
    if frame is None:
        frame, lines, malformed = _read_by_line(block, layout)
    else:
        lines, malformed = np.arange(block.first_line, block.first_line + len(frame)), []
    if any(blank.encode() in block.text for blank in BLANKS if blank != layout.separator):
        numbers = [name for name, rule in layout.fields if rule in NUMBER]
        frame = frame.with_columns((pl.all() if layout.spaced else pl.col(numbers)).str.strip_chars("".join(BLANKS)))
    if layout.missing:
        frame = frame.with_columns(pl.all().replace(dict.fromkeys(layout.missing, "")))
    return frame, lines, malformed


def _read_whole(block: Block, layout: RowFormat) -> pl.DataFrame | None:
    """The columns as text; None unless every line is a row of plain values."""
    text, separator = block.text, layout.separator
    if b'"' in text or any(code.encode() in text for code in CONTROL):
        return None
    if b"\r" in text and text.count(b"\r") != text.count(b"\r\n"):
        return None
    if len(layout.columns) == 1 and not all(line.strip() for line in text.splitlines()):
        return None  # with several columns the count of separators reveals blank lines
    if len(separator) > 1:
        text, separator = text.replace(separator.encode(), SINGLE.encode()), SINGLE
    separators = np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord(separator))  # bytes.count takes longer
    if separators != (len(layout.columns) - 1) * block.lines:
        return None
    try:
        return _read_csv(text, layout, separator)
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError):
        return None  # a line with too many columns, or bytes that are not UTF-8


def _read_by_line(block: Block, layout: RowFormat) -> tuple[pl.DataFrame, np.ndarray, list[Malformed]]:
    """`read_text` for a block with quotes, malformed rows, comments, blank lines, or invalid UTF-8."""
    rows, numbers, malformed = [], [], []
    lines = block.text.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines[:-1], block.first_line):
        if not line.strip() or (layout.comment and line.startswith(layout.comment)):
            continue
        try:
            row = _plain(line, layout)
        except csv.Error as error:
            malformed.append(Malformed(number, f"it cannot be read as CSV ({error})"))
            continue
        columns = row.count(SINGLE) + 1
        if columns == len(layout.columns):
            rows.append(row)
            numbers.append(number)
        else:
            malformed.append(Malformed(number, f"{columns} columns instead of {len(layout.columns)}"))
    frame = _read_csv("".join(row + "\n" for row in rows).encode(), layout, SINGLE)
    return frame, np.array(numbers, dtype=np.int64), malformed


def _plain(line: str, layout: RowFormat) -> str:
    """The values of one line without their quotes, with `SINGLE` between them.

    Raises:
        csv.Error: it has an unclosed quote, or control characters.
    """
    if any(code in line for code in CONTROL):
        raise csv.Error("it holds control characters")
    line = line.replace(layout.separator, SINGLE)
    if '"' not in line and "\r" not in line:
        return line
    try:
        (values,) = csv.reader([line], delimiter=SINGLE, skipinitialspace=layout.spaced, strict=True)
    except csv.Error as error:
        raise csv.Error("a quote is not closed" if "end of data" in str(error) else str(error)) from error
    return SINGLE.join(value.replace(SINGLE, layout.separator).replace("\r", " ") for value in values)


def _read_csv(text: bytes, layout: RowFormat, separator: str) -> pl.DataFrame:
    """The columns of lines that hold nothing but values and separators."""
    schema = dict.fromkeys(layout.columns, pl.String)
    if not text:
        return pl.DataFrame(schema=schema)
    options: dict[str, Any] = {"has_header": False, "quote_char": None, "empty_string_is_null": False}
    return pl.read_csv(io.BytesIO(text), separator=separator, schema=schema, **options)


def _faults(frame: pl.DataFrame, typed: pl.DataFrame, layout: RowFormat) -> dict[int, str]:
    """What is wrong with each malformed row, by its index: the fault of the label, else of the first bad field."""
    checks = {}
    if layout.label in layout.columns:
        allowed = [*layout.clicks, *layout.misses]
        checks[layout.label] = ~pl.col(layout.label).is_in(allowed), f"not {' or '.join(map(_shortened, allowed))}"
    for name, rule in layout.fields:
        if rule in NUMBER:
            text = pl.col(name).is_null() & (frame[name] != "")
            checks[name] = text | _not_a(rule, name), f"not a {'whole number' if rule in WHOLE else 'number'}"
    if not checks or not any(typed.select(check.any() for check, _ in checks.values()).row(0)):
        return {}
    reasons: dict[int, str] = {}
    for name, (check, kind) in reversed(checks.items()):
        places = typed.select(check).to_series().arg_true().to_list()
        reasons |= {place: f"{name} is {_shortened(repr(frame[name][place]))}, {kind}" for place in places}
    return reasons


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


def _not_a(rule: Rule, name: str) -> pl.Expr:
    """Where a number is invalid: not finite, or not whole where the rule needs that. Missing numbers are valid."""
    values = pl.col(name)
    bad = ~values.is_finite()
    if rule in WHOLE:
        bad = bad | (values != values.floor())
    return bad.fill_null(False)
