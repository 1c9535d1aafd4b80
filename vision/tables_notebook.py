"""The MNIST experiment of iacolippo's `dfa-mnist.ipynb`: one hidden layer, backpropagation against DFA."""

from __future__ import annotations

from typing import Any

from harness.tables import Cell, RunContext, Table
from vision.running import run_cell

PUBLISHED = {"bp": {"test_error": 7.71, "train_error": 2.46}, "dfa": {"test_error": 7.70, "train_error": 5.04}}
COLUMNS = {"test_error": "test error", "train_error": "train error"}


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """A cell, at the published length."""
    return run_cell(cell, seed, context, length={}, quick={"epochs": 40, "lr": 1e-3})


NOTEBOOK = Table(
    name="notebook-mnist",
    title="784-800-10 on MNIST from standard normal weights: error",
    task="vision",
    unit="%",
    scale=100,
    decimals=2,
    cells=tuple(
        Cell(
            row="784-800-10",
            column=column,
            method=method,
            key=f"iacolippo_{method}",
            dataset="mnist",
            metric=metric,
            published=PUBLISHED.get(method, {}).get(metric),
        )
        for method in ("bp", "dfa", "shallow")
        for metric, column in COLUMNS.items()
    ),
    source="iacolippo's dfa-mnist.ipynb",
    run=run,
    notes=(
        "At most 100 epochs, ended when the training error changes by no more than 1e-4; published runs ended at 98.",
    ),
    needs="MNIST",
    time="2 min a run (1 core)",
)

TABLES: tuple[Table, ...] = (NOTEBOOK,)
