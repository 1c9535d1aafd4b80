"""A user's table: a CSV or Parquet file with named columns, one of which says whether there was a click.

Options say what a column holds; otherwise all of its rows are looked at. What was found is printed. A column whose
values are all numbers holds numbers, which are binned by quantiles of the training rows. Any other column holds
categories, and so does one named "id" or "..._id", because the order of ids means nothing. Rows are split 80/10/10 at
random.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UserError
from recsys.datasets.columns import Column, Table, scan
from recsys.log.cache import open_log
from recsys.log.clicks import ClickData
from recsys.log.formats import SKIPPED, RowFormat, Rule, Source, listed
from recsys.log.parquet import is_parquet, nested_names
from recsys.log.text import table_header

OWN = "own"  # the name of a user's table among the data sets
MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "\\N", "?")  # and the empty value
MEANINGS = (("0", "1"), ("-1", "1"), ("false", "true"), ("f", "t"), ("no", "yes"), ("n", "y"))  # no click, a click
ID = re.compile(r"(^|[ _.-])id$|[a-z]I[dD]$", re.IGNORECASE)
MOSTLY = 0.9  # share of numbers above which the other values of a column are taken for mistakes, not categories


@dataclass(frozen=True, kw_only=True)
class OwnTable:
    """A user's table, and what the options say about its columns."""

    path: Path
    label: str
    clicks: tuple[str, ...] = ()  # values of the label that mean a click; (): by `MEANINGS`
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_own(table: OwnTable, *, seed: int, min_count: int, limit: int | None = None) -> ClickData:
    """The table as a click log; what was found in it is printed to stderr.

    Raises:
        UserError: the file cannot be read, or its columns do not fit the options.
    """
    layout, words = own_layout(table, limit)
    print(words, file=sys.stderr)
    return open_log(OWN, [Source(table.path)], layout, seed=seed, min_count=min_count, count_all=False, limit=limit)


def own_layout(table: OwnTable, limit: int | None = None) -> tuple[RowFormat, str]:
    """What the lines of a table hold, and the same in words.

    Raises:
        UserError: as for `read_own`.
    """
    plain = RowFormat(
        separator=",", columns=(), fields=(), label=table.label, clicks=(), misses=(), header=True, spaced=True,
        missing=MISSING, own=True,
    )  # fmt: skip
    names, separator = table_header(table.path, plain)
    if not any(names):
        raise UserError(f"{table.path} has no rows. Give a table with a line of column names and one row a line.")
    check_names(table, names)
    columns = tuple(name or f"{SKIPPED}{place}" for place, name in enumerate(names))
    found = scan(table.path, replace(plain, columns=columns, separator=separator), limit)
    clicks, misses = click_values(table, found.labels)
    inputs = {name: column for name, column in found.columns.items() if name not in (table.label, *table.ignored)}
    rules = {name: find_rule(table, name, column) for name, column in inputs.items() if column.values}
    if not rules:
        raise UserError(f"{table.path} has no column with values other than {table.label}. It names {listed(names)}.")
    layout = replace(
        plain, columns=columns, separator=separator, fields=tuple(rules.items()), clicks=clicks, misses=misses
    )
    return layout, in_words(table, layout, found)


def check_names(table: OwnTable, names: Sequence[str]) -> None:
    """Raise `UserError` unless the header has the columns that were named, each once."""
    has = f"{table.path}, line 1: the header names {listed(names)}"
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise UserError(f"{has}, and {listed(twice)} more than once. Give each column a different name.")
    options = {"label": (table.label,), "numbers": table.numbers, "categories": table.categories}
    for option, given in (options | {"ignore": table.ignored}).items():
        unknown = [name for name in given if name not in names]
        if unknown:
            raise UserError(
                f"--{option} {listed(unknown)}: no such column. {has}. Give a name from the header, or add a header if "
                "there is none."
            )
    nested = nested_names(table.path) if is_parquet(table.path) else []
    if bad := [name for name in nested if name not in table.ignored]:
        raise UserError(
            f"{table.path}: {listed(bad)} holds lists, records or bytes, which are neither numbers nor categories. Add "
            f"--ignore {' '.join(bad)}."
        )


def click_values(table: OwnTable, labels: Counter[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The values of the label that mean a click, and those that mean no click, as spelled in the table.

    Raises:
        UserError: it is not clear which are which, or there is only one kind.
    """
    values = sorted((value for value in labels if value), key=lambda value: (-labels[value], value))
    shown = listed([f"{value} ({labels[value]} rows)" for value in values])
    about = f"{table.path}: --label {table.label} has the values {shown or 'none'}"
    if table.clicks:
        if unknown := [value for value in table.clicks if value not in values]:
            raise UserError(f"--clicks {listed(unknown)}: {about}. Name some of these.")
        clicks = tuple(value for value in values if value in table.clicks)
        misses = tuple(value for value in values if value not in table.clicks)
    else:
        meant = {value: _canonical(value) for value in values}
        pair = next((pair for pair in MEANINGS if set(meant.values()) == set(pair)), None)
        if pair is None and len(set(meant.values())) > 1:
            raise UserError(f"{about}. Say which of them mean a click: --clicks VALUE ...")
        clicks, misses = (tuple(v for v in values if pair and meant[v] == kind) for kind in (pair or ("", ""))[::-1])
    if not clicks or not misses:
        raise UserError(f"{about}. There should be rows with a click and rows without.")
    return clicks, misses


def _canonical(value: str) -> str:
    """A label's value in lower case, and 1 for 1.0."""
    try:
        return f"{float(value):g}"
    except ValueError:
        return value.lower()


def find_rule(table: OwnTable, name: str, column: Column) -> Rule:
    """Whether a column holds numbers or categories: as an option says, else by its values.

    Raises:
        UserError: it should hold numbers and does not, or its values do not decide.
    """
    if name in table.categories:
        return Rule.CATEGORY
    others = column.values - column.numbers
    about = (
        f"{table.path}: {name} has {column.values} values, and {others} are not numbers, such as {column.text[:60]!r}"
    )
    if column.commas and column.numbers + column.commas == column.values:
        raise UserError(
            f"{about}. Write numbers with a decimal point and without commas, or say that these are categories: "
            f"--categories {name!r}."
        )
    if others > column.values * (1 - MOSTLY) and name in table.numbers:
        raise UserError(f"{about}. Leave the column out of --numbers, or correct the file.")
    if name in table.numbers or not others:
        return Rule.CATEGORY if ID.search(name) and name not in table.numbers else Rule.QUANTILE
    if column.numbers >= MOSTLY * column.values:
        raise UserError(
            f"{about}. Leave missing values empty, or say what the column holds: --categories {name!r}, or --numbers "
            f"{name!r}, which skips these rows."
        )
    return Rule.CATEGORY


def in_words(table: OwnTable, layout: RowFormat, found: Table) -> str:
    """What was found, in one line."""
    clicks = sum(found.labels[value] for value in layout.clicks)
    known = clicks + sum(found.labels[value] for value in layout.misses)
    kinds = {
        "numbers": [name for name, rule in layout.fields if rule is Rule.QUANTILE],
        "categories": [name for name, rule in layout.fields if rule is Rule.CATEGORY],
    }
    kinds["left out"] = [
        "a column without a name" if name.startswith(SKIPPED) else name
        for name in layout.columns
        if name not in (layout.label, *layout.names)
    ]
    listing = "; ".join(f"{kind}: {listed(names, 40)}" for kind, names in kinds.items() if names)
    return (
        f"{table.path}: {found.rows} rows; {layout.label} {' or '.join(layout.clicks)} is a click "
        f"({clicks / known:.1%}); {listing}. --numbers, --categories and --ignore change this."
    )
