"""From the runs of a column to what a cell of the board says."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reproduce.scoreboard.columns import Column
from reproduce.scoreboard.running import exact_share
from reproduce.scoreboard.tables import COST, key, refusal

Line = dict[str, Any]
LEAST_GAP = 3.0  # spreads between shallow training and backpropagation, for a share of the way to mean something


@dataclass(frozen=True)
class Score:
    """What a rule came to on a column."""

    mean: float | None = None  # in the column's metric; None: no run, or none that ended in numbers
    std: float | None = None
    seeds: int = 0
    rate: float | None = None  # the best of the grid; None: not all of it has been run
    edge: bool = False  # the best rate is the first or the last of the grid
    share: float | None = None  # of the way from shallow training to backpropagation
    step_ratio: float | None = None  # to backpropagation's
    memory_ratio: float | None = None
    exact: float = 0.0  # share of passes that are backpropagation's
    why: str = ""  # there is no number


def best_rate(column: Column, method: str, lines: Sequence[Line]) -> float | None:
    """The rate of the best validation score of seed 0; None until the whole grid has been run, or if all diverged."""
    found: dict[float, float] = {}
    for rate in column.rates:
        line = run_of(column, method, rate, 0, lines)
        if line is None:
            return None
        value = line["result"]["metrics"].get(column.validation)
        if value is not None and math.isfinite(value):
            found[rate] = value if column.higher else -value
    return max(found, key=found.__getitem__) if found else None


def run_of(column: Column, method: str, rate: float, seed: int, lines: Sequence[Line]) -> Line | None:
    """The line of a run, the newest if there are two."""
    wanted = (key(column, rate), method, seed)
    same = [line for line in lines if (line["preset"], line["method"], line["seed"]) == wanted]
    return same[-1] if same else None


def scores(column: Column, methods: Sequence[str], lines: Sequence[Line]) -> dict[str, Score]:
    """What every rule came to; shares need those of bp and shallow."""
    found = {method: score(column, method, lines) for method in dict.fromkeys((*methods, "bp", "shallow"))}
    bp, shallow = found["bp"], found["shallow"]
    for method in methods:
        share = share_of_way(found[method], shallow, bp, column.higher)
        found[method] = Score(**vars(found[method]) | {"share": share})
    return {method: found[method] for method in methods}


def score(column: Column, method: str, lines: Sequence[Line]) -> Score:
    """What a rule came to, but for its share of the way."""
    if why := refusal(column, method) or refused(column, method, lines):
        return Score(why=why)
    rate = best_rate(column, method, lines)
    exact = exact_share(column.rule(method))
    if rate is None:
        runs = [run_of(column, method, tried, 0, lines) for tried in column.rates]
        return Score(exact=exact, why="diverged at every rate" if all(runs) else "not run")
    values = [
        line["result"]["metrics"].get(column.metric)
        for line in lines
        if (line["preset"], line["method"]) == (key(column, rate), method)
    ]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    cost: dict[str, Any] = next(
        (line["result"]["metrics"] for line in lines if line["method"] == method and is_cost(line)), {}
    )
    if method == "bp":
        cost = {"step_ratio": 1.0, "memory_ratio": 1.0}
    return Score(
        mean=statistics.fmean(finite),
        std=statistics.stdev(finite) if len(finite) > 1 else None,
        seeds=len(finite),
        rate=rate,
        edge=rate in (column.rates[0], column.rates[-1]),
        step_ratio=cost.get("step_ratio"),
        memory_ratio=cost.get("memory_ratio"),
        exact=exact,
    )


def is_cost(line: Line) -> bool:
    return str(line["preset"]).endswith(f"_{COST}")


def refused(column: Column, method: str, lines: Sequence[Line]) -> str:
    """The library's word that the rule does not go with the model, if it gave it."""
    for line in lines:
        if line["method"] == method and (why := (line["result"].get("config") or {}).get("refused")):
            return str(why)
    return ""


def share_of_way(found: Score, shallow: Score, bp: Score, higher: bool) -> float | None:
    """How far a score is from shallow training's (0) to backpropagation's (1); None where these two hardly differ.

    Example:
        >>> share_of_way(Score(mean=0.6), Score(mean=0.4), Score(mean=0.8), higher=True)
        0.5
    """
    if found.mean is None or shallow.mean is None or bp.mean is None:
        return None
    gap = (bp.mean - shallow.mean) * (1 if higher else -1)
    if gap <= LEAST_GAP * max(bp.std or 0.0, shallow.std or 0.0) or gap <= 0:
        return None
    return round((found.mean - shallow.mean) * (1 if higher else -1) / gap, 6)
