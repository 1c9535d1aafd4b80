"""The bottleneck curve of arXiv 1906.04554: accuracy and alignment against the entries that are kept.

Published numbers: hard-coded in the release (`bottleneck_from_log.py`), after 50 epochs.
"""

from __future__ import annotations

from typing import Any, Literal

from harness.methods import named
from harness.tables import Cell, RunContext, Table
from harness.tables.results import slim
from vision.bottleneck import train
from vision.bottleneck.preset import BottleneckPreset
from vision.cells import preset_of

COLUMNS = {  # metric: column
    "test_accuracy": "test accuracy",
    "train_accuracy": "train accuracy",
    "alignment 1": "cosine 1 x 100",
    "alignment 1, same mask": "cosine 1 x 100, same mask",
    "alignment 2": "cosine 2 x 100",
    "alignment 3": "cosine 3 x 100",
}
PUBLISHED = [metric for metric in COLUMNS if "same mask" not in metric]
STD = {  # b: test, train (%), alignment 1, 2, 3 (cosine)
    1: (40.5, 41.2, 0.000, 0.069, 0.466),
    3: (41.1, 41.9, 0.002, 0.168, 0.464),
    5: (41.5, 42.5, 0.001, 0.234, 0.463),
    8: (41.9, 43.3, 0.003, 0.315, 0.461),
    11: (42.8, 44.0, 0.008, 0.374, 0.458),
    18: (43.4, 45.3, 0.024, 0.466, 0.458),
    28: (44.6, 46.8, 0.033, 0.541, 0.463),
    46: (45.6, 49.4, 0.054, 0.622, 0.476),
    73: (46.8, 53.0, 0.082, 0.692, 0.499),
    118: (47.9, 58.5, 0.138, 0.760, 0.536),
    191: (47.6, 67.7, 0.226, 0.826, 0.584),
    308: (46.8, 81.4, 0.373, 0.871, 0.641),
    496: (46.4, 94.4, 0.608, 0.895, 0.680),
    800: (47.1, 99.5, 0.969, 0.892, 0.677),
}
PAI = {
    1: (36.1, 36.4, 0.000, 0.279, 0.966),
    3: (38.1, 38.5, 0.000, 0.429, 0.974),
    5: (39.4, 39.8, 0.000, 0.516, 0.978),
    8: (40.2, 40.7, 0.004, 0.598, 0.981),
    11: (41.1, 41.8, 0.012, 0.652, 0.984),
    18: (42.4, 43.3, 0.018, 0.727, 0.986),
    28: (43.0, 44.9, 0.033, 0.786, 0.987),
    46: (44.7, 47.7, 0.059, 0.836, 0.987),
    73: (46.2, 51.4, 0.093, 0.883, 0.988),
    118: (47.2, 57.3, 0.153, 0.921, 0.989),
    191: (48.2, 66.3, 0.243, 0.951, 0.990),
    308: (47.2, 80.2, 0.383, 0.970, 0.985),
    496: (46.4, 93.9, 0.611, 0.955, 0.956),
    800: (46.5, 99.4, 0.976, 0.961, 0.965),
}
LENGTH: dict[str, Any] = {"epochs": 10, "precision": "bf16"}  # of 50 in fp32
QUICK: dict[str, Any] = {"epochs": 20, "lr": 0.01, "batch": 64}
QUICK_WIDTH = 64


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """The training that a row's cells share; at small scale the bottleneck is as narrow relative to the width."""
    preset: BottleneckPreset = preset_of(cell, context, QUICK)
    if context.scale == "quick":
        preset = preset.narrowed(QUICK_WIDTH)
    where: dict[str, Any] = {"dataset": cell.dataset, "data_dir": context.data_dir, "device": context.device}
    return slim(train.train(train.Config(preset=preset, seed=seed, **where)))


def _row(size: int, init: Literal["std", "pai"], method: str, published: tuple[float, ...]) -> list[Cell]:
    """The cells of one training; cosines are shown times 100, as accuracies are."""
    scaled = [value * (1 if column < 2 else 100) for column, value in enumerate(published)]
    numbers = dict(zip(PUBLISHED, scaled, strict=False))
    return [
        Cell(
            row=f"b = {size}, {init.upper()}",
            column=column,
            method=method,
            key=f"bottleneck_{size}_{init}_{method}",
            preset=BottleneckPreset(keep=size, init=init, method=named(method)),
            length=LENGTH,
            dataset="cifar10",
            metric=metric,
            published=numbers.get(metric),
        )
        for metric, column in COLUMNS.items()
        if method == "dfa" or "accuracy" in metric
    ]


def _cells() -> tuple[Cell, ...]:
    rows = [_row(size, "std", "dfa", numbers) for size, numbers in STD.items()]
    rows += [_row(size, "pai", "dfa", numbers) for size, numbers in PAI.items()]
    rows.append(_row(800, "std", "bp", ()))
    return tuple(cell for row in rows for cell in row)


BOTTLENECK = Table(
    name="bottleneck",
    title="DFA through a bottleneck: accuracy on CIFAR-10, and alignment after each tanh",
    task="vision",
    unit="%",
    scale=100,
    cells=_cells(),
    source="arXiv 1906.04554, bottleneck experiment",
    run=run,
    notes=(
        "b of 800: entries that the middle layer's gradients keep. STD: torch's initialisation; PAI: pre-aligned.",
        "10 of the published 50 epochs (`--epochs 50` runs them all), with bfloat16 products.",
        "Cosine 1 compares two networks with masks of their own, as published, which alone makes it about b / 800; "
        "under one and the same mask it says how well the layer is aligned.",
    ),
    in_quick=False,
    needs="CIFAR-10",
    time="1 min a run (1 core)",
)

TABLES: tuple[Table, ...] = (BOTTLENECK,)
