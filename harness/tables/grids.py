"""Tables that try one grid of settings by every method."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

from harness.device import pick_device
from harness.errors import NonFiniteLoss
from harness.tables.results import make_result
from harness.tables.table import Cell, RunContext

CellRun = Callable[[Cell, int, RunContext], dict[str, Any]]


def or_diverged(task: str, run: CellRun) -> CellRun:
    """`run`, with a result in place of an error where training diverges.

    In a grid a divergence is a result, and a row without it would never be complete. The cell's metric is
    not a number then, which tables show as such.

    Args:
        task: The task's folder.
        run: What trains a cell of its table.
    """

    @functools.wraps(run)
    def tried(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
        start = perf_counter()
        try:
            return run(cell, seed, context)
        except NonFiniteLoss as error:
            return make_result(
                task=task,
                model=cell.row,
                dataset=cell.dataset,
                method=cell.method,
                seed=seed,
                metrics={cell.metric: math.nan},
                seconds=perf_counter() - start,
                config={"preset": cell.key, "diverged": str(error)},
                device=pick_device(context.device),
            )

    return tried
