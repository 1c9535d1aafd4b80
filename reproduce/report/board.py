"""The scoreboard as the report opens with it: its picture, and rules as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.methods import label
from harness.report import Figure, ReportTable

if TYPE_CHECKING:
    from reproduce.scoreboard.columns import Column
    from reproduce.scoreboard.page import Scores
    from reproduce.scoreboard.summary import Score


@dataclass(frozen=True)
class Board:
    """What the report shows of the scoreboard."""

    short: ReportTable  # kinds of models as columns
    figure: Figure
    table: ReportTable  # every model


def board(results: Path) -> Board | None:
    """The scoreboard of the runs below `results`; None if there are none."""
    if not any((results / "scoreboard").glob("*.jsonl")):
        return None
    from reproduce.scoreboard import command, picture, short  # takes all tasks along

    columns, methods, found, _ = command.board(results)
    drawn = Figure(
        "Quality and cost", "A point a rule, the median over the models.", picture.picture(columns, methods, found)
    )
    order = short.ranked(columns, methods, found)
    header, rows = short.grid(columns, [*order, "shallow"], found)
    rows = [[label(method), *row[1:]] for method, row in zip([*order, "shallow"], rows, strict=True)]
    table = ReportTable(
        "How far each rule goes from shallow training (0 %) to backpropagation (100 %)",
        tuple(header),
        tuple(map(tuple, rows)),
        "means over the models of a kind; costs are medians, as ratios to backpropagation; equal, short runs",
    )
    return Board(table, drawn, _whole(columns, methods, found))


def _whole(columns: Sequence[Column], methods: Sequence[str], found: Scores) -> ReportTable:
    """Every rule on every model."""
    header = ("", *(f"{column.model}, {column.title}" for column in columns))
    rows = []
    for method in methods:
        scores = [found[column.name][method] for column in columns]
        if any(score.mean is not None for score in scores):
            rows.append((label(method), *(_cell(column, score) for column, score in zip(columns, scores, strict=True))))
    return ReportTable("Every rule on every model", header, tuple(rows), "share of the way, and the score")


def _cell(column: Column, score: Score) -> str:
    """Share and score, one below the other."""
    from reproduce.scoreboard.page import NOTHING, percent

    if score.mean is None:
        return NOTHING
    number = f"{score.mean * column.scale:.{column.decimals}f}"
    return number if score.share is None else f"{percent(score.share)}\n{number}"
