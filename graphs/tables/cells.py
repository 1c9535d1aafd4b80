"""What a cell of a table runs, at the published length or small."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graphs import alignment, autoencoder, embed, train
from graphs.presets import Preset, find_autoencoder_preset
from harness.tables import Cell, RunContext
from harness.tables.results import slim

# Small scale: DNAConv's epochs take ten times as long as others', and by backpropagation it learns from epoch 40 on.
QUICK_EPOCHS = 100
QUICK_EPOCHS_OF_DNA = {"bp": 55, "shallow": 15}
QUICK_EPOCHS_OF_DNA_OTHERS = 30
QUICK_EPOCHS_OF_DNA_ALIGNMENT = 15


def run_classifier(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """A cell of Table 3 or A.4."""
    return slim(train.train(train.Config(**_options(cell, seed, context))))


def run_scores(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """The same without curves, for tables of many runs."""
    result = run_classifier(cell, seed, context)
    return {name: value for name, value in result.items() if name != "curves"}


def run_alignment(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """A cell of Table A.2."""
    quick = QUICK_EPOCHS_OF_DNA_ALIGNMENT if cell.preset.model == "dna" else QUICK_EPOCHS
    return slim(alignment.measure(alignment.Config(**_options(cell, seed, context, quick))))


def run_autoencoder(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """A cell of Table 4; at small scale with the settings of the other data sets than CiteSeer."""
    quick = find_autoencoder_preset(dataset=cell.dataset, method=cell.method) if context.scale == "quick" else None
    cell = replace(cell, preset=quick or cell.preset)
    return slim(autoencoder.train(autoencoder.Config(**_options(cell, seed, context, QUICK_EPOCHS))))


def run_embedding(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """A map of Figure 2; its points are kept for the first seed only."""
    config = train.Config(**_options(cell, seed, context))
    result = embed.embed(config, iterations=250 if context.scale == "quick" else 5000)
    if seed > 0:
        del result["curves"]
    return result


def _options(cell: Cell, seed: int, context: RunContext, quick: int | None = None) -> dict[str, Any]:
    """What a cell asks for; at small scale for `quick` epochs."""
    length = {"epochs": quick or _quick_epochs(cell.preset)} if context.scale == "quick" else dict(cell.length)
    length |= {} if context.epochs is None else {"epochs": context.epochs}
    place = {"data_dir": context.data_dir, "device": context.device}
    return {"preset": replace(cell.preset, **length), "dataset": cell.dataset, "seed": seed} | place


def _quick_epochs(preset: Preset) -> int:
    if preset.model == "dna":
        return QUICK_EPOCHS_OF_DNA.get(preset.method, QUICK_EPOCHS_OF_DNA_OTHERS)
    return QUICK_EPOCHS
