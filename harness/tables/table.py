"""A published table as data: which numbers it holds, and which run of ours answers each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace  # noqa: F401 - in an example
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of a published table, and the run that reproduces it."""

    row: str  # "GraphConv"
    column: str  # "Cora"
    method: str  # "bp", "dfa", "shallow"
    key: str  # the name that its result lines are filed under, as "preset", such as "gcn_dfa"
    dataset: str  # "cora"
    metric: str  # key in result["metrics"], such as "test_accuracy"
    published: float | None = None  # in the table's unit; None: not known, stays empty
    source: str = ""
    preset: Any = field(default=None, hash=False)  # the task's preset itself, at the published length
    length: Mapping[str, Any] = field(default_factory=dict, hash=False)  # fields that the table's runs have otherwise

    @property
    def shortened(self) -> str:
        """How much less than published the run is, in words; empty if it is not.

        Example:
            >>> from types import SimpleNamespace
            >>> cell = Cell(row="", column="", method="", key="", dataset="", metric="")
            >>> replace(cell, preset=SimpleNamespace(epochs=100), length={"epochs": 1, "precision": "bf16"}).shortened
            '1 of 100 epochs'
        """
        parts = (_less(name, value, getattr(self.preset, name, None)) for name, value in self.length.items())
        return ", ".join(filter(None, parts))


def _less(name: str, value: Any, published: Any) -> str:
    """A number of something as a part of the published one, or as it is where all of it was published."""
    if type(value) is not int or not (published is None or value < published):
        return ""
    whole = "" if published is None else f" of {published:,}"
    return f"{value:,}{whole} {name.removeprefix('max_').replace('_', ' ')}"


@dataclass(frozen=True)
class RunContext:
    """What a cell's run needs to know besides the cell and the seed."""

    scale: str = "paper"  # "paper": the published setting; "quick": small, on embedded data
    data_dir: Path | None = None
    device: str = "auto"
    epochs: int | None = None  # in place of the number that the scale means

    @property
    def label(self) -> str:
        """What the runs are filed under: runs of another length are never mixed with those of the scale."""
        return self.scale if self.epochs is None else f"{self.scale}, {self.epochs} epochs"


@dataclass(frozen=True, kw_only=True)
class Table:
    """One published table. Shown value = metric * `scale`, with `decimals` digits, in `unit`."""

    name: str  # unique in the project, such as "table3"
    title: str
    task: str  # the task's folder
    unit: str
    cells: tuple[Cell, ...]
    source: str  # "arXiv 2006.12878, Table 3"; begins with "ours" for a table that no paper has
    run: Callable[[Cell, int, RunContext], dict[str, Any]]  # (cell, seed, context) -> result
    notes: tuple[str, ...] = ()
    needs: str = ""  # data it needs, for --list
    time: str = ""  # measured time, for --list
    decimals: int = 1
    scale: float = 1.0
    small: bool = False  # True: cut by `harness.tables.aggregate.quick`, so no number compares with a published one
    in_quick: bool = True  # False: `--all --scale quick` leaves it out, for its time, or because another says the same

    @property
    def is_ours(self) -> bool:
        """Whether no paper has this table."""
        return self.source.startswith("ours")

    @property
    def is_compared(self) -> bool:
        """Whether there is any published number to set ours against."""
        return any(cell.published is not None for cell in self.cells)

    def path(self, results: Path) -> Path:
        """The file that gathers this table's runs below the folder `results`."""
        return results / self.task / f"{self.name}.jsonl"
