"""The scoreboard as Markdown: what every rule kept of backpropagation's quality, and what a step of it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.methods import label, rule_of
from reproduce.render import provenance
from reproduce.scoreboard.columns import COLUMNS, FACTORS, FINER, Column
from reproduce.scoreboard.summary import Line, Score

NOTHING = "–"
AT_EDGE = "†"  # behind a score
EDGE_NOTE = f"{AT_EDGE}: the best rate is the first or the last of the grid, so that another may be better."
COSTS = "time, memory, each as a ratio to backpropagation; passes of backpropagation, where there are any."
Scores = Mapping[str, Mapping[str, Score]]  # by column, by rule


def markdown(columns: Sequence[Column], methods: Sequence[str], found: Scores, lines: Sequence[Line]) -> str:
    """The board.

    Args:
        columns: Its columns.
        methods: Its rows; those without a number anywhere are left out.
        found: See `reproduce.scoreboard.summary.scores`.
        lines: All runs, to say where the numbers come from.
    """
    rows = [method for method in methods if any(found[column.name][method].mean is not None for column in columns)]
    heads = [head(column) for column in columns]
    text = ["**Every rule on one model of every task, at equal steps**", ""]
    text += ["Share of the way from shallow training (0 %) to backpropagation (100 %); below it the score itself.", ""]
    text += grid(heads, rows, lambda row, at: quality(columns[at], found[columns[at].name][row]), len(columns))
    text += [
        "",
        "**What a step costs**: time, memory, each as a ratio to backpropagation; passes of backpropagation.",
        "",
    ]
    text += grid(heads, rows, lambda row, at: cost(found[columns[at].name][row]), len(columns))
    text += ["", *(f"- {note}" for note in notes(columns, rows, found))]
    if lines:
        text.append(f"- {provenance(lines)}")
    return "\n".join(text) + "\n"


def grid(heads: Sequence[str], rows: Sequence[str], cell: Callable[[str, int], str], count: int) -> list[str]:
    """A table with rules as rows."""
    table = ["| | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * count]
    return table + [f"| {name(row)} | " + " | ".join(cell(row, at) for at in range(count)) + " |" for row in rows]


def name(method: str) -> str:
    """A rule in the first column; ours are said to be."""
    return f"{label(method)}, ours" if rule_of(method).source.startswith("tinydfa") else label(method)


def head(column: Column) -> str:
    """Model, data and length."""
    return f"{column.model}, {column.title}<br>{column.unit}, {column.length}"


def quality(column: Column, score: Score) -> str:
    """The cell of the first table."""
    if score.mean is None:
        return NOTHING if score.why in ("", "not run") else ("refused" if "diverged" not in score.why else "diverged")
    spread = "" if score.std is None else f" ± {score.std * column.scale:.{column.decimals}f}"
    number = f"{score.mean * column.scale:.{column.decimals}f}{spread} ({score.seeds}){AT_EDGE if score.edge else ''}"
    return number if score.share is None else f"**{percent(score.share)}**<br>{number}"


def percent(share: float) -> str:
    """A share as text.

    Example:
        >>> percent(0.834), percent(-0.001)
        ('83 %', '0 %')
    """
    return f"{round(100 * share) or 0} %"


def cost(score: Score) -> str:
    """The cell of the second table."""
    if score.step_ratio is None:
        return NOTHING
    exact = f", {100 * score.exact:.3g} %" if score.exact else ""
    return f"{score.step_ratio:.2f}, {score.memory_ratio:.2f}{exact}"


def notes(columns: Sequence[Column], rows: Sequence[str], found: Scores) -> list[str]:
    """How the numbers came about, and why some are missing."""
    factors, finer = (", ".join(f"{factor:.2g}" for factor in grid) for grid in (FACTORS, FINER))
    said = [
        "Ours: no paper has this table. Mean ± standard deviation (seeds). Every rule has the settings of its column, "
        f"but for the learning rate: the best of {factors} (Transformers: {finer}) times the column's, by the "
        "validation score of seed 0.",
        "Short runs, for many rules to be compared at equal steps; the length is in the head of each column. "
        "Published lengths and settings are in the tables of the tasks.",
        "Graphs: the error is taken before the last aggregation, by every rule. Transformers: below the last norm, by "
        "every rule. Click models: the embeddings learn by the gradient of the first hidden layers.",
        "No share where backpropagation and shallow training differ by less than three standard deviations.",
    ]
    if any(found[column.name][row].edge for column in columns for row in rows):
        said.append(EDGE_NOTE)
    return said + refusals(columns, rows, found)


def refusals(columns: Sequence[Column], rows: Sequence[str], found: Scores) -> list[str]:
    """Why cells are empty, each reason once."""
    where: dict[str, list[str]] = {}
    for column in columns:
        for row in rows:
            why = found[column.name][row].why
            if why and why != "not run":
                where.setdefault(" ".join(why.split()), []).append(f"{label(row)} on {column.model}")
    return [f"{', '.join(dict.fromkeys(cells))}: {why}" for why, cells in where.items()]


def chosen_columns(names: Sequence[str]) -> list[Column]:
    """Columns by name, or all of a task; all if none is named."""
    return [column for column in COLUMNS.values() if not names or column.name in names or column.task in names]
