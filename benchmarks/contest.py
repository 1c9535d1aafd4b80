"""Contestants that train the same model and take turns, and what the table says about each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.allocations import peak_bytes
from benchmarks.timing import Step, interleave, ratio

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Steps on one model, by contestant. The one called `bp` is this project's backpropagation, or plain torch's."""

    task: str
    model: str
    steps: Mapping[str, Step]
    peers: Mapping[str, str] = field(default_factory=dict)  # of a contestant of ours: whom it is up against
    limits: Mapping[str, float] = field(default_factory=dict)  # of a contestant's ratio to bp, counting products
    repeats: int = 1  # how often a round runs: short steps need more of them


def measure(contest: Contest, rounds: int, device: str = "cpu") -> list[Row]:
    """One row per contestant, all from the same interleaved run; memory from one step more.

    Args:
        contest: Who takes part.
        rounds: Steps of each contestant are `rounds * contest.repeats`.
        device: Where they run.
    """
    steps = dict(contest.steps)
    times = interleave(steps, rounds * contest.repeats, warm_up=2, device=device)
    rows = []
    for name, step in steps.items():
        numbers = {"ms a step": round(statistics.median(times[name]) * 1e3, 2)}
        numbers["ratio to BP"] = round(ratio(times, name, "bp"), 3)
        if name in contest.peers:
            numbers["ratio to peer"] = round(ratio(times, name, contest.peers[name]), 3)
        if name in contest.limits:
            numbers["limit"] = round(contest.limits[name], 3)
        numbers["peak MiB"] = round(peak_bytes(step, device) / 2**20, 1)
        rows.append(make_row(contest.task, contest.model, name, numbers))
    return rows


def not_measured(task: str, contestant: str, reason: str) -> Row:
    """The row of a contestant that could not run."""
    return make_row(task, "", contestant, {}, f"not measured: {' '.join(reason.split())}")


def make_row(task: str, model: str, contestant: str, numbers: dict[str, float], note: str = "") -> Row:
    """A row of the table; a number that is not given does not apply."""
    row: Row = {"task": task, "model": model, "contestant": contestant}
    row |= dict.fromkeys(("ms a step", "ratio to BP", "ratio to peer", "limit", "peak MiB"))
    return row | numbers | {"note": note}
