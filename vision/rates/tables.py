"""Learning rates of some rows in one epoch: validation error at a tenth to three times the rate."""

from __future__ import annotations

from typing import Any

from harness.tables import Cell, RunContext, Table
from harness.tables.grids import or_diverged
from tinydfa import Method
from vision.cells import run_cell
from vision.rates.notes import FACTORS, listed
from vision.rates.presets import HOLD_OUT, TRIED, Tried, tried_preset

LENGTH = {"precision": "bf16"}
QUICK = {"epochs": 2, "hold_out": 100}
QUICK_IMAGES = 1337  # of the 1437 that there are; for the rows that train on some images alone


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """A cell of the table."""
    few = {} if cell.preset.train_images is None else {"train_images": QUICK_IMAGES}
    return run_cell(cell, seed, context, quick=QUICK | few)


def _cell(row: str, tried: Tried, method: Method, factor: float) -> Cell:
    """A cell of the table: one epoch."""
    key, preset = tried_preset(tried, method, factor)
    return Cell(
        row=row,
        column=f"{factor:g} times the rate",
        method=method.value,
        key=key,
        preset=preset,
        length=LENGTH,
        dataset=tried.dataset,
        metric="val_error",
    )


VISION_RATES = Table(
    name="vision-rates",
    title="Learning rates of some rows: validation error after one epoch",
    task="vision",
    unit="%",
    scale=100,
    cells=tuple(
        _cell(row, tried, method, factor)
        for row, tried in TRIED.items()
        for method in tried.methods
        for factor in FACTORS
    ),
    source="ours: whether rates for the full length suit a short run",
    run=or_diverged("vision", run),
    notes=(
        f"{listed()} times the rate of the row's preset by every method, seed 0, one epoch"
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
