"""The best-practice tables of arXiv 1906.04554, sections 3 and 4: CIFAR-10, fully connected and convolutional.

None of the published accuracies could be read, so every `published` is empty.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from harness.tables import Cell, Table
from tinydfa import Method
from vision.cells import run_cell
from vision.principled.presets import METHODS, PRESETS, VARIANTS
from vision.rates.notes import note_of

SOURCE = "arXiv 1906.04554"
QUICK = {"epochs": 10, "lr": 0.02, "batch": 64}
LENGTHS: dict[str, dict[str, Any]] = {
    "fc": {"precision": "bf16"},  # published: fp32
    "cnn": {"epochs": 4, "precision": "bf16"},  # of 50 in fp32
}
COLUMNS = {"test_accuracy": "test", "train_accuracy": "train"}


def _cells(network: str) -> tuple[Cell, ...]:
    """DFA in every variant, backpropagation and shallow training in the plain one."""
    return tuple(
        _cell(name, row, method, metric)
        for name, (base, row, changes) in VARIANTS.items()
        if base.model == network
        for method in ((Method.DFA,) if changes else METHODS)
        for metric in COLUMNS
    )


def _cell(name: str, row: str, method: Method, metric: str) -> Cell:
    """A cell of either table; the convolutional one is shorter than published."""
    key = f"principled_{name}_{method.value}"
    preset = PRESETS[key]
    return Cell(
        row=row,
        column=COLUMNS[metric],
        method=method.value,
        key=key,
        preset=preset,
        length=LENGTHS[preset.model],
        dataset="cifar10",
        metric=metric,
    )


def _table(network: str, what: str, section: str, length: str, time: str) -> Table:
    return Table(
        name=f"principled-{network}",
        title=f"Best practices for DFA, {what}: accuracy on CIFAR-10",
        task="vision",
        unit="%",
        scale=100,
        cells=_cells(network),
        source=f"{SOURCE}, {section}",
        run=partial(run_cell, quick=QUICK),
        in_quick=network == "fc",
        notes=(
            length,
            "Train accuracy is counted while the last epoch runs, dropout on. Backpropagation follows the loss summed "
            "over the batch at the same rate.",
            note_of(f"{network.upper()}, tanh"),
        ),
        needs="CIFAR-10",
        time=time,
    )


TABLES: tuple[Table, ...] = (
    _table(
        "fc",
        "fully connected",
        "Section 3",
        "The published 50 epochs, with bfloat16 products where the processor has them.",
        "3 to 8 min a run (1 core)",
    ),
    _table(
        "cnn",
        "convolutional",
        "Section 4",
        "4 of the published 50 epochs (`--epochs 50` runs them all), with bfloat16 products where the processor has "
        "them.",
        "2 to 4 min a run (1 core)",
    ),
)
