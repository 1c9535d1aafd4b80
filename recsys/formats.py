"""What a line of each data set looks like, and how each of its fields becomes a category."""

from __future__ import annotations

from dataclasses import dataclass, replace
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


WHOLE = (Rule.LN2, Rule.LOG2)  # rules for whole numbers
NUMBER = (*WHOLE, Rule.QUANTILE)  # rules whose values are numbers


@dataclass(frozen=True)
class RowFormat:
    """The lines of a text file, and which of their columns are fields of an impression."""

    separator: str  # between the columns of a line
    columns: tuple[str, ...]  # of a labelled line, in order
    fields: tuple[tuple[str, Rule], ...]  # columns that describe the impression, in the order the models see them
    label: str  # the column that tells of a click
    clicks: tuple[str, ...]  # its values that mean a click
    misses: tuple[str, ...]  # its values that mean none
    header: bool = False  # the first line names the columns
    spaced: bool = False  # a blank may follow a separator
    missing: tuple[str, ...] = ()  # values that mean "missing", besides the empty one
    comment: str = ""  # lines that start with this are skipped, if it is not empty

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names."""
        return tuple(name for name, _ in self.fields)

    @property
    def unlabelled(self) -> RowFormat:
        """Lines that hold the fields and nothing else."""
        return replace(self, columns=self.names, header=False)

    def with_header(self, line: str, path: Path | str, labelled: bool = True) -> RowFormat:
        """The same format with the columns that a header names; further columns are skipped, capitals do not matter.

        Args:
            line: The header.
            path: Where it is, for messages.
            labelled: The label must be among the columns.

        Raises:
            UserError: a column is not there, or twice.
        """
        ours = {name.lower(): name for name in (self.label, *self.names)}
        given = [name.strip().strip('"') for name in line.rstrip("\r\n").split(self.separator)]
        columns = tuple(ours.get(name.lower(), f"skipped:{place}") for place, name in enumerate(given))
        needed = (self.label, *self.names) if labelled else self.names
        lacking = [name for name in needed if columns.count(name) != 1]
        if lacking:
            raise UserError(
                f"{path}, line 1: the header should name each column once, but this is not so for "
                f"{', '.join(lacking[:5])}{' and others' if lacking[5:] else ''}. Give the file as it was published."
            )
        return replace(self, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """The format as plain data."""
        return (
            self.__dict__
            | {"fields": [[name, str(rule)] for name, rule in self.fields]}
            | {name: list(getattr(self, name)) for name in ("columns", "clicks", "misses", "missing")}
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RowFormat:
        """The format that `to_dict` gave."""
        lists = {name: tuple(data[name]) for name in ("columns", "clicks", "misses", "missing")}
        return cls(**data | lists | {"fields": tuple((name, Rule(rule)) for name, rule in data["fields"])})
