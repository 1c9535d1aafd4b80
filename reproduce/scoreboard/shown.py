"""The scoreboard on a terminal: rules as rows, yours beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.methods import label
from reproduce import terminal
from reproduce.scoreboard import page
from reproduce.scoreboard.columns import Column
from reproduce.scoreboard.summary import Line

Board = tuple[list[Column], list[str], page.Scores, list[Line]]
TITLE = "Share of the way from shallow training (0 %) to backpropagation (100 %); below it the score itself"


SMALL = "Small runs on embedded data, whatever the columns are called: to see that it works, and not to compare rules."


def show(boards: Mapping[str, Board], columns: Sequence[Column], methods: Sequence[str] | None, small: bool) -> None:
    """Print what there is.

    Args:
        boards: By whose runs they are: "yours", "ours".
        columns: Those to show.
        methods: The rules to show; all if None.
        small: Whether the runs are small ones.
    """
    names = {column.name for board in boards.values() for column in board[0]}
    columns = [column for column in columns if column.name in names]
    rules = dict.fromkeys(rule for board in boards.values() for rule in board[1] if methods is None or rule in methods)
    rows = []
    for rule in rules:
        for owner, board in boards.items():
            if rule in board[1]:
                named = f"{label(rule)} (yours)" if owner == "yours" and len(boards) > 1 else label(rule)
                cells = [_cell(column, rule, board) for column in columns]
                rows += [(named, *cells)] if any(cells) else []
    heads = [page.head(column).replace("<br>", "\n") for column in columns]
    tables = {column.name for column in columns}
    lines = {owner: [line for line in board[3] if line["table"] in tables] for owner, board in boards.items()}
    remarks = [page.provenance(some, owner) for owner, some in lines.items() if some]
    edge = [page.EDGE_NOTE] if any(page.AT_EDGE in text for row in rows for text in row) else []
    terminal.show_grid(TITLE, ["", *heads], rows, 1, [*edge, *([SMALL] if small else []), *remarks])


def _cell(column: Column, rule: str, board: Board) -> str:
    """What the Markdown table says, in plain letters; empty if nothing was run."""
    scores = board[2].get(column.name, {})
    if rule not in scores or scores[rule].why == "not run":
        return ""
    return page.quality(column, scores[rule]).replace("**", "").replace("<br>", "\n")
