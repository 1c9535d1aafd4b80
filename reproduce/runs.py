"""Whose runs are shown: ours, which come with the project in results/, and yours, of whoever repeats them.

New runs go to a folder of their own, `OUT`, so that they are made even where we have made the same, and stand beside
ours. Who runs into results/ itself adds to ours, and has none beside them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import writing
from harness.tables import Table
from harness.tables.aggregate import lines_of

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("runs/reproduce")


class Runs(NamedTuple):
    """The runs of a table, a line each."""

    ours: list[dict[str, Any]]
    yours: list[dict[str, Any]]

    @classmethod
    def of(cls, table: Table, out: Path, label: str) -> Runs:
        """Those filed under `label`, in results/ and in the folder `out`."""
        ours = lines_of(table, results(), label)
        return cls(ours, [] if is_ours(out) else lines_of(table, out, label))


def results() -> Path:
    """The folder of our runs, as short as it can be written."""
    near = os.path.relpath(ROOT / "results")
    return ROOT / "results" if near.startswith("..") else Path(near)


def make_folder(out: Path) -> None:
    """Make a folder for runs.

    Raises:
        UserError: it cannot be made, so that every run would be lost.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)


def is_ours(out: Path) -> bool:
    """Whether runs into the folder `out` are added to ours."""
    return out.resolve() == (ROOT / "results").resolve()
