"""The source files of a log, what a line of them holds, and how each field becomes a category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.errors import UserError


class Rule(StrEnum):
    """How the value of a field becomes a category."""

    CATEGORY = "category"  # each value is one
    LN2 = "ln2"  # whole numbers: int(ln(v) ** 2) above 2, else v - 2; what the published runs' code does
    LOG2 = "log2"  # whole numbers: int(log2(v)) above 2, else 1; what the Criteo_x4 benchmark describes
    QUANTILE = "quantile"  # numbers: between which quantiles of the training rows


PARTS = ("train", "val", "test")
SKIPPED = "\x1fskipped"  # the name of a column that is not read
WHOLE = (Rule.LN2, Rule.LOG2)  # rules for whole numbers
NUMBER = (*WHOLE, Rule.QUANTILE)  # rules whose values are numbers


@dataclass(frozen=True)
class Source:
    """A text file, and the shares of its rows that go to training, validation and test."""

    path: Path
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class RowFormat:
    """What the lines of a text file hold, and which columns are fields of an impression."""

    separator: str  # between the columns of a line
    columns: tuple[str, ...]  # of a labelled line, in order
    fields: tuple[tuple[str, Rule], ...]  # columns that describe the impression, in the order the models see them
    label: str  # the column with the clicks
    clicks: tuple[str, ...]  # its values that mean a click
    misses: tuple[str, ...]  # its values that mean no click
    header: bool = False  # the first line names the columns
    spaced: bool = False  # strip blanks around text
    missing: tuple[str, ...] = ()  # values that mean "missing", in addition to the empty one
    comment: str = ""  # lines that start with this are skipped, if it is not empty
    own: bool = False  # a user's table: any common separator, or Parquet

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names."""
        return tuple(name for name, _ in self.fields)

    @property
    def unlabelled(self) -> RowFormat:
        """Lines that hold the fields and nothing else."""
        return replace(self, columns=self.names, header=False)

    @property
    def label_skipped(self) -> RowFormat:
        """The same lines, without reading the label's column."""
        return replace(self, columns=tuple(SKIPPED if name == self.label else name for name in self.columns))

    def with_header(
        self, given: Sequence[str], path: Path | str, separator: str | None = None, labelled: bool = True
    ) -> RowFormat:
        """The same format with the columns that a header names; further columns are skipped.

        Names match regardless of case, unless another column has exactly the wanted name.

        Args:
            given: The names in the header.
            path: The file, for messages.
            separator: The separator of the lines; None: the format's.
            labelled: Require the label's column.

        Raises:
            UserError: a column is missing, or occurs twice.
        """
        needed = (self.label, *self.names) if labelled else self.names
        ours = {name.lower(): name for name in (self.label, *self.names) if name not in given}
        ours |= {name: name for name in (self.label, *self.names) if name in given}
        columns = tuple(ours.get(name, ours.get(name.lower(), f"{SKIPPED}{place}")) for place, name in enumerate(given))
        wrong = [name for name in needed if columns.count(name) != 1]
        if wrong:
            raise UserError(
                f"{path}, line 1: the header should name each column once, but this is not so for "
                f"{listed(wrong)}. It names {listed(given)}, and there should be {listed(needed)}. Give the file with "
                "all of its columns and their names."
            )
        return replace(self, columns=columns, separator=separator or self.separator)

    def to_dict(self) -> dict[str, Any]:
        """The format as plain data."""
        return (
            self.__dict__
            | {"fields": [[name, str(rule)] for name, rule in self.fields]}
            | {name: list(getattr(self, name)) for name in ("columns", "clicks", "misses", "missing")}
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RowFormat:
        """The format that `to_dict` gave; unknown entries, which earlier versions wrote, are ignored."""
        lists = {name: tuple(data[name]) for name in ("columns", "clicks", "misses", "missing")}
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**known | lists | {"fields": tuple((name, Rule(rule)) for name, rule in data["fields"])})


def listed(names: Sequence[str], most: int = 12) -> str:
    """At most `most` names, for a message."""
    return ", ".join(name or "''" for name in names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
