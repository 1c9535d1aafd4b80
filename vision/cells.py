"""How a cell of this folder's tables is run: its preset, at the length that the table states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.device import pick_device
from harness.precision import fastest
from harness.tables import Cell, RunContext
from harness.tables.results import slim
from tinydfa import Method
from vision import train

UNITS = 25  # whose first-layer weights are kept for the report


def run_cell(
    cell: Cell, seed: int, context: RunContext, *, quick: Mapping[str, Any], keep_weights: bool = False
) -> dict[str, Any]:
    """Train what `cell` asks for.

    Args:
        cell: Its preset, and the fields of it that the table makes shorter or cheaper.
        seed: Of weights, feedback and batches.
        context: At scale "quick" the digits, small; else the cell's data.
        quick: In place of the cell's `length` at scale "quick".
        keep_weights: Keep some weights of the first layer, for the first seed.
    """
    preset = preset_of(cell, context, quick)
    config = train.Config(
        preset=preset,
        dataset=cell.dataset,
        seed=seed,
        data_dir=context.data_dir,
        device=context.device,
        alignment_every=None if preset.method in (Method.BP, Method.SHALLOW) else 1,
        keep_weights=UNITS if keep_weights and seed == 0 else 0,
    )
    return slim(train.train(config))


def preset_of(cell: Cell, context: RunContext, quick: Mapping[str, Any]) -> Any:
    """The preset of `cell` at the length of `context`, with bfloat16 products only where they are no slower."""
    preset = replace(cell.preset, **lengths(cell, context, quick))
    return preset if preset.precision == "fp32" else replace(preset, precision=fastest(pick_device(context.device)))


def lengths(cell: Cell, context: RunContext, quick: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in which `context` differs from the preset of `cell`."""
    changes = dict(quick if context.scale == "quick" else cell.length)
    return changes | ({} if context.epochs is None else {"epochs": context.epochs})
