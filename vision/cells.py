"""How a cell of this folder's tables is run: its preset, at the length that the table states."""

from __future__ import annotations

from typing import Any

from harness.device import pick_device
from harness.methods import named
from harness.precision import fastest
from harness.results import slim
from harness.tables import Cell, RunContext
from tinydfa import Method
from vision import train

UNITS = 25  # whose first-layer weights are kept for the report


def run_cell(
    cell: Cell,
    seed: int,
    context: RunContext,
    *,
    length: dict[str, Any],
    quick: dict[str, Any],
    keep_weights: bool = False,
) -> dict[str, Any]:
    """Train what `cell` asks for.

    Args:
        cell: Its preset says all but the length.
        seed: Of weights, feedback and batches.
        context: At scale "quick" the digits, small; else the cell's data.
        length: Arguments of `vision.train.Config` that make the preset shorter or cheaper; none: as published.
        quick: The same for scale "quick".
        keep_weights: Keep some weights of the first layer, for the first seed.
    """
    method = named(cell.method)
    config = train.Config(
        preset=cell.key,
        method=method,
        dataset=cell.dataset,
        seed=seed,
        data_dir=context.data_dir,
        device=context.device,
        alignment=method not in (Method.BP, Method.SHALLOW),
        keep_weights=UNITS if keep_weights and seed == 0 else 0,
        **shortened(context, length, quick),
    )
    return slim(train.train(config))


def shortened(context: RunContext, length: dict[str, Any], quick: dict[str, Any]) -> dict[str, Any]:
    """`length`, or `quick` at that scale, with the epochs of the command line; bf16 only where it is no slower."""
    changes = dict(quick if context.scale == "quick" else length)
    if context.epochs is not None:
        changes["epochs"] = context.epochs
    if "precision" in changes:
        changes["precision"] = fastest(pick_device(context.device))
    return changes
