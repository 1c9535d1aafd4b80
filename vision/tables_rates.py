"""Learning rates of rows that run shorter than published: validation error at a tenth to three times the rate."""

from __future__ import annotations

from typing import Any

from harness.grids import or_diverged
from harness.methods import label
from harness.tables import Cell, RunContext, Table
from vision.presets_rates import BEST, FACTORS, HOLD_OUT, TRIED, tried_preset
from vision.running import run_cell

LENGTH = {"precision": "bf16"}
QUICK = {"epochs": 2, "hold_out": 100}


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """A cell of the table: one epoch."""
    return run_cell(cell, seed, context, length=LENGTH, quick=QUICK)


def _listed() -> str:
    """The factors, in words."""
    *others, last = (f"{factor:g}" for factor in FACTORS)
    return f"{', '.join(others)} and {last}"


def note_of(row: str) -> str:
    """What the notes of a row's own table say of its rate."""
    if row not in BEST:
        return (
            f"Whether the rate of {row} suits so few epochs is tried in table `vision-rates`, which lacks runs of it."
        )
    found = ", ".join(f"{factor:g} by {label(method)}" for method, factor in BEST[row].items())
    return (
        f"{row} after one epoch: of {_listed()} times the rate the one with the lowest validation "
        f"error is {found} (table `vision-rates`). The row keeps the rate itself."
    )


VISION_RATES = Table(
    name="vision-rates",
    title="Learning rates of rows that run shorter than published: validation error after one epoch",
    task="vision",
    unit="%",
    scale=100,
    cells=tuple(
        Cell(
            row=row,
            column=f"{factor:g} times the rate",
            method=method.value,
            key=tried_preset(tried, method, factor)[0],
            dataset=tried.dataset,
            metric="val_error",
        )
        for row, tried in TRIED.items()
        for method in tried.methods
        for factor in FACTORS
    ),
    source="ours: whether rates for the full length suit a short run",
    run=or_diverged("vision", run),
    notes=(
        f"{_listed()} times the rate of the row's preset by every method, seed 0, one epoch"
        + "".join(f"; of {t.train_images:,} images alone: {row}" for row, t in TRIED.items() if t.train_images)
        + ". The presets of LeNet have 0.1 by BP and 0.0001 by DFA, as published.",
        f"Error on {HOLD_OUT:,} training images that are held out. Rows of the other tables keep the rate of their "
        "preset.",
    ),
    in_quick=False,
    needs="CIFAR-10, MNIST",
    time="10 to 40 s a run (1 core)",
)

TABLES: tuple[Table, ...] = (VISION_RATES,)
