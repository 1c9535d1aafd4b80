"""BioTorch's benchmark on CIFAR-10: LeNet under six methods.

Published: `Benchmarks.md` of github.com/jsalbert/biotorch, snapshot of 29 September 2021, test error in per cent.
"""

from __future__ import annotations

from functools import partial

from harness.tables import Cell, Table
from tinydfa import Method
from vision.biotorch.presets import METHODS, PRESETS
from vision.cells import run_cell
from vision.rates.notes import note_of

PUBLISHED = {  # LeNet on CIFAR-10, in the order of METHODS
    "lenet": ("LeNet, SGD", (14.23, 46.69, 54.21, 16.22, 16.02, 16.86)),
    "lenet-adam": ("LeNet, Adam", (15.92, 40.67, 37.59, 16.34, 17.08, 16.83)),
}
LENGTH = {"epochs": 2, "precision": "bf16"}  # of 250 in fp32
QUICK = {"epochs": 3, "batch": 64, "hold_out": 0}


def _cell(row: str, model: str, method: Method, published: float) -> Cell:
    """A cell of the table, shorter than published."""
    key = f"biotorch_{model}_{method.value}"
    return Cell(
        row=row,
        column="CIFAR-10",
        method=method.value,
        key=key,
        preset=PRESETS[key],
        length=LENGTH,
        dataset="cifar10",
        metric="test_error",
        published=published,
    )


BIOTORCH = Table(
    name="biotorch",
    title="LeNet on CIFAR-10 by feedback methods: test error",
    task="vision",
    unit="%",
    scale=100,
    cells=tuple(
        _cell(row, model, method, published)
        for model, (row, numbers) in PUBLISHED.items()
        for method, published in zip(METHODS, numbers, strict=True)
    ),
    source="BioTorch, Benchmarks.md of 2021",
    run=partial(run_cell, quick=QUICK),
    notes=(
        "2 of the published 250 epochs (`--epochs 250` runs them all), with bfloat16 products: the rate is not "
        "yet divided.",
        "At a convolution BioTorch's DFA spreads the error through a fixed kernel; ours sends e @ F to every position, "
        "above activation and pool.",
        note_of("LeNet, SGD"),
    ),
    in_quick=False,  # three epochs of LeNet take as long as twelve of the other networks, and teach it nothing
    needs="CIFAR-10",
    time="2 to 3 min a run (1 core)",
)

TABLES: tuple[Table, ...] = (BIOTORCH,)
