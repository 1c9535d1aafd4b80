"""The options of `fitted`, one changed at a time, on columns of the scoreboard and at the rate that was best there.

period    one exact pass in so many             ridge    of the solve
memory    what is left of the moments           rows     most that an exact pass shows of a point
steady    every look counts the same            adapt    the cosine aimed at, in place of the period
error     where a Transformer's is taken

The last row has several at once: exact passes come often at first, and ever more rarely while the old fit holds.

A run of the Transformer takes as long as ten of the others, so that it has the rows alone that say most about it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.tables import Cell, RunContext, Table
from harness.tables.aggregate import summarise
from reproduce.learned import channels
from reproduce.render import NOTHING, remarks
from reproduce.scoreboard.columns import COLUMNS, EXACT_EVERY, Column
from reproduce.scoreboard.running import train
from reproduce.scoreboard.summary import Score, share_of_way

FOLDER = "learned"
RATES = {  # the best of `fitted` on the scoreboard
    "cora": 0.03,
    "fc-cifar": 0.000167,
    "lenet-cifar": 0.001,
    "docs-micro": 0.004,
}
ABOVE_NORM_RATE = 0.002  # its own best
USUAL = {"exact_every": EXACT_EVERY, "memory": 0.9, "ridge": 1e-3, "rows": 0}
TOGETHER: dict[str, Any] = {"exact_every": 5, "adapt": 0.5, "exact_between": (5, 1000), "steady": True}
PER_CHANNEL: dict[str, Any] = {"channels": ((32 * 15 * 15, 32), (64 * 6 * 6, 64))}  # of the network's two feature maps
ABOVE_NORM: dict[str, Any] = {"error_at": "hidden"}  # of the Transformer's settings, and no option of the rule
ONLY = {"channels": "lenet-cifar", "error_at": "docs-micro"}  # a row of one column
FEW = "docs-micro"  # has some rows alone:
SOME: tuple[dict[str, Any], ...] = ({}, {"exact_every": 1000}, {"memory": 0.0}, {"steady": True}, TOGETHER, ABOVE_NORM)
OPTIONS: Mapping[str, tuple[float, ...]] = {
    "exact_every": (10, 20, 100, 200, 1000),
    "memory": (0.0, 0.5, 0.99),
    "ridge": (1e-5, 1e-1, 1.0),
    "rows": (8, 32),
    "steady": (True,),
    "adapt": (0.5,),
}
WAY = "Share of the way from shallow training (0 %) to backpropagation (100 %)"
SAID = {
    "exact_every": "one exact pass in {:g}",
    "memory": "memory {:g}",
    "ridge": "ridge {:g}",
    "rows": "{:g} rows looked at",
    "steady": "steady",
    "adapt": "exact passes where the cosine has fallen to {:g}",
}


def variants() -> dict[str, dict[str, Any]]:
    """The options of every row, by what the row is called."""
    first = "as on the scoreboard: one exact pass in {exact_every}, memory {memory}, ridge {ridge}, all rows"
    rows: dict[str, dict[str, Any]] = {first.format_map(USUAL): dict(USUAL)}
    for option, values in OPTIONS.items():
        rows |= {SAID[option].format(value): USUAL | {option: value} for value in values}
    rows["one signal a channel, the same at all its positions"] = USUAL | PER_CHANNEL
    rows["the error taken above the last norm, as published"] = USUAL | ABOVE_NORM
    rows["steady, that cosine, and 5 passes from the first exact one to the second"] = USUAL | TOGETHER
    return rows


def has(name: str, options: Mapping[str, Any]) -> bool:
    """Whether a column has a row of these options."""
    if name == FEW:
        return options in [USUAL | some for some in SOME]
    return all(ONLY.get(option, name) == name for option in options)


def rule(options: Mapping[str, Any]) -> str:
    """The rule with its options, as commands take it, and behind an @ where else the error is taken.

    Example:
        >>> rule({"exact_every": 10, "memory": 0.9, "error_at": "hidden"})
        'fitted(exact_every=10, memory=0.9)@hidden'
    """
    of_rule = [f"{name}={value!r}" for name, value in options.items() if name != "error_at"]
    return f"fitted({', '.join(of_rule)})" + (f"@{options['error_at']}" if "error_at" in options else "")


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train a column of the scoreboard by `fitted` with the cell's options."""
    name, _, method = cell.key.partition("+")
    method, _, error_at = method.partition("@")
    if "channels=" in method:
        method = method.replace("fitted", f"{os.path.relpath(channels.__file__)}:{channels.PerChannel.__name__}", 1)
    column, rate = COLUMNS[name], RATES[name]
    if error_at:
        column, rate = replace(column, preset=replace(column.preset, error_at=error_at)), ABOVE_NORM_RATE
    return train(column, method, rate, seed, context)


def markdown(table: Table, lines: Sequence[dict[str, Any]], ends: Mapping[str, tuple[Score, Score]]) -> str:
    """The table with a row a setting and a column a model.

    Args:
        table: The ablation.
        lines: Its runs.
        ends: By column of the scoreboard what shallow training and backpropagation came to there.
    """
    columns = [COLUMNS[name] for name in RATES]
    text = [f"**{table.title}**", "", f"{WAY} (in brackets the score, mean ± std, and its seeds).", ""]
    text.append("| | " + " | ".join(map(head, columns)) + " |")
    text.append("| --- |" + " ---: |" * len(columns))
    cells = {(cell.row, cell.key.partition("+")[0]): cell for cell in table.cells}
    for row in dict.fromkeys(cell.row for cell in table.cells):
        found = [(column, cells.get((row, column.name))) for column in columns]
        shown = ["" if cell is None else number(column, cell, table, lines, ends) for column, cell in found]
        text.append(f"| {row} | " + " | ".join(shown) + " |")
    return "\n".join([*text, "", *(f"- {note}" for note in remarks(table, lines))]) + "\n"


def head(column: Column) -> str:
    """Model, data and unit."""
    return f"{column.model}, {column.title}, {column.unit}"


def number(
    column: Column,
    cell: Cell,
    table: Table,
    lines: Sequence[dict[str, Any]],
    ends: Mapping[str, tuple[Score, Score]],
) -> str:
    """Share of the way, and the score."""
    found = summarise(replace(table, scale=column.scale), cell, lines)
    if found.mean is None:
        return f"{NOTHING} ({found.failed} diverged)" if found.failed else NOTHING
    spread = "" if found.std is None else f" ± {found.std:.{column.decimals}f}"
    failed = f", {found.failed} diverged" if found.failed else ""
    score = f"{found.mean:.{column.decimals}f}{spread}, {found.n}{failed}"
    share = share_of_way(
        Score(mean=found.mean / column.scale), *ends.get(column.name, (Score(), Score())), column.higher
    )
    return score if share is None else f"{100 * share:.0f} % ({score})"


ABLATION = Table(
    name="fitted-ablation",
    title="The options of fitted, one changed at a time",
    task=FOLDER,
    unit="score",
    cells=tuple(
        Cell(
            row=row,
            column=name,
            method="fitted",
            key=f"{name}+{rule(options)}",
            dataset=COLUMNS[name].dataset,
            metric=COLUMNS[name].metric,
        )
        for row, options in variants().items()
        for name in RATES
        if has(name, options)
    ),
    source="ours: no paper has such a table",
    run=run,
    notes=(
        "Models, data, lengths and ends of the way are the scoreboard's; every row has the rate that was best for "
        "fitted there, but for the error above the norm, which has its own best. Images come in batches of 100 and 64 "
        "rows, a graph as 2,708, text as 1,024.",
        "No run has more than 1,000 passes, so that one exact pass in 1000 is the first alone. The last row changes "
        "several options.",
    ),
    in_quick=False,
    needs="Cora, CIFAR-10",
    time="3 to 40 s a run (1 core)",
)
