"""A table for every column of the scoreboard, in the form that `reproduce.execute` runs: its cells are runs.

Of the cells of a rule, three try the rates of the grid, and one measures what a step costs
(`reproduce.scoreboard.cost`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.methods import known, label
from harness.tables import Cell, RunContext, Table
from reproduce.scoreboard.columns import COLUMNS, Column
from reproduce.scoreboard.running import NoPlaceError, preset_of, train

FOLDER = "scoreboard"  # below the results folder
# Rows, the most telling first.
FIRST = ("bp", "shallow", "dfa", "fitted", "fdfa", "fitted_forward")
PREDSIM = "les(similarity=0.99)"  # as published; LES itself has no similarity loss
ROWS = (*FIRST, *(name for name in known() if name not in FIRST), PREDSIM)
COST = "cost"


def key(column: Column, rate: float) -> str:
    """What a run of a column at a rate is filed under."""
    return f"{column.name}_lr-{rate:g}"


def tried(column: Column, method: str) -> tuple[Cell, ...]:
    """The runs that try the rates; none where the task has no place for the rule."""
    if refusal(column, method):
        return ()
    return tuple(
        Cell(
            row=label(method),
            column=f"{rate:g}",
            method=method,
            key=key(column, rate),
            dataset=column.dataset,
            metric=column.metric,
            preset=preset_of(column, method, rate, RunContext()),
        )
        for rate in column.rates
    )


def costs(column: Column, method: str) -> tuple[Cell, ...]:
    """The run that measures a rule's steps; none for backpropagation, beside which they are measured."""
    if method == "bp" or refusal(column, method):
        return ()
    cell = tried(column, method)[0]
    return (replace(cell, column=COST, key=f"{column.name}_{COST}", metric="step_ratio"),)


def refusal(column: Column, method: str) -> str:
    """Why the task has no place for a rule; empty if it has."""
    try:
        preset_of(column, method, column.preset.lr, RunContext())
    except NoPlaceError as error:
        return str(error)
    return ""


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train what a cell asks for, or measure it."""
    name, _, what = cell.key.rpartition("_")
    column = COLUMNS[name]
    if what == COST:
        from reproduce.scoreboard.cost import measure

        return measure(column, cell.method, context)
    return train(column, cell.method, float(what.removeprefix("lr-")), seed, context)


def table_of(column: Column, methods: Sequence[str] = ROWS) -> Table:
    """The runs of a column."""
    return Table(
        name=column.name,
        title=f"{column.model} on {column.title}",
        task=FOLDER,
        unit=column.unit,
        cells=tuple(cell for method in methods for cell in (*tried(column, method), *costs(column, method))),
        source="ours: the scoreboard",
        run=run,
        decimals=column.decimals,
        scale=column.scale,
    )


TABLES: tuple[Table, ...] = tuple(table_of(column) for column in COLUMNS.values())
