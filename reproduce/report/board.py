"""The scoreboard as the report opens with it: its picture, and rules as rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.methods import label
from harness.report import Figure, ReportTable

if TYPE_CHECKING:
    from reproduce.scoreboard.columns import Column
    from reproduce.scoreboard.summary import Score


@dataclass(frozen=True)
class Board:
    """What the report shows of the scoreboard."""

    table: ReportTable
    figure: Figure


def board(results: Path) -> Board | None:
    """The scoreboard of the runs below `results`; None if there are none."""
    if not any((results / "scoreboard").glob("*.jsonl")):
        return None
    from reproduce.scoreboard import command, picture  # takes all tasks along

    columns, methods, found, _ = command.board(results)
    header = ("", *(f"{column.model}, {column.title}" for column in columns))
    rows = []
    for method in methods:
        scores = [found[column.name][method] for column in columns]
        if any(score.mean is not None for score in scores):
            rows.append((label(method), *(_cell(column, score) for column, score in zip(columns, scores, strict=True))))
    caption = (
        "share of the way from shallow training (0 %) to backpropagation (100 %), and the score; equal, short runs"
    )
    table = ReportTable("Every rule on one model of every task", header, tuple(rows), caption)
    drawn = Figure(
        "Quality and cost", "A point a rule, the median over the tasks.", picture.picture(columns, methods, found)
    )
    return Board(table, drawn)


def _cell(column: Column, score: Score) -> str:
    """Share and score, one below the other."""
    if score.mean is None:
        return "–"
    number = f"{score.mean * column.scale:.{column.decimals}f}"
    return number if score.share is None else f"{100 * score.share:.0f} %\n{number}"
