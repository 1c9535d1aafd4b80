"""How long a training step of the click models takes: this project against torchfm, and DFA against backpropagation.

    python -m benchmarks.recsys_step --threads 1 --out results/benchmarks/recsys_step.json

A step is forward, backward and Adam on one batch of a log like Criteo's: 39 fields, a million categories, dense
embeddings, the sizes of the published runs, no clipping. torchfm trains as its example does, `torch.optim.Adam` with
its defaults, and once more with the fused Adam that this project uses. Contestants take turns; ratios are medians over
rounds. The limit counts the products of matrices that a DFA step does, over those of backpropagation: what both spend
on embeddings and on Adam is not in it, and DFA's embeddings in AFN do not train at all, as published.
"""

from __future__ import annotations

import statistics
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.environment import save
from benchmarks.timing import Step, interleave, ratio
from recsys.log.batches import Batch
from recsys.preset import MODELS, Preset
from recsys.presets import PUBLISHED
from recsys.training import Training
from tinydfa import Method

COUNTS, CATEGORIES = 13, 26  # fields of Criteo
BINS = 50  # values of a field of counts
TARGETS = {"bp": 1.0, "dfa": 1.0}
TARGET_DCN = 0.85  # of DFA, with its perceptron of 1024 x 2
TARGET_MEDIAN = 0.85  # of this project's backpropagation to torchfm, over the models


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time a training step of each click model."""

    models: tuple[str, ...] = tuple(MODELS)
    """fm, deepfm, dcn, autoint, afn."""
    rounds: int = 9
    """Steps of each contestant."""
    batch: int = 2048
    """Rows of a batch."""
    categories: int = 1_000_000
    """Categories of all fields together."""
    threads: int = 2
    """Threads that torch may use."""
    device: str = "cpu"
    """cpu or cuda."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""


def criteo_like(categories: int) -> tuple[int, ...]:
    """Sizes of 39 fields: 13 of counts, and 26 of categories that grow by the same factor from 4 to the largest."""
    left = categories - COUNTS * BINS
    low, high = 1.0, float(left)
    for _ in range(100):
        factor = (low * high) ** 0.5
        low, high = (factor, high) if sum(4 * factor**place for place in range(CATEGORIES)) < left else (low, factor)
    sizes = [int(4 * low**place) for place in range(CATEGORIES)]
    sizes[-1] += left - sum(sizes)
    return (BINS,) * COUNTS + tuple(sizes)


def draw_batch(field_dims: tuple[int, ...], rows: int, device: str, seed: int = 0) -> Batch:
    """Rows whose categories follow Zipf's law: the value of rank k is drawn about as often as 1 / k."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(field_dims, dtype=torch.float64)
    uniform = torch.rand(rows, len(field_dims), generator=generator, dtype=torch.float64)
    fields = (sizes**uniform).floor().int() - 1
    labels = (torch.rand(rows, generator=generator) < 0.25).float()
    return Batch(fields.to(device), labels.to(device), rows)


def torchfm_model(preset: Preset, field_dims: tuple[int, ...]) -> nn.Module:
    """torchfm's model of the sizes of `preset`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchfm.model.afi import AutomaticFeatureInteractionModel
        from torchfm.model.afn import AdaptiveFactorizationNetwork
        from torchfm.model.dcn import DeepCrossNetworkModel
        from torchfm.model.dfm import DeepFactorizationMachineModel
        from torchfm.model.fm import FactorizationMachineModel
    p, dropouts = preset, (preset.dropout, preset.dropout)
    attention = (p.embed, p.attention, p.heads, p.attention_layers, p.mlp, dropouts)
    models: dict[str, tuple[type[nn.Module], tuple[Any, ...]]] = {
        "fm": (FactorizationMachineModel, (p.embed,)),
        "deepfm": (DeepFactorizationMachineModel, (p.embed, p.mlp, p.dropout)),
        "dcn": (DeepCrossNetworkModel, (p.embed, p.cross_layers, p.mlp, p.dropout)),
        "autoint": (AutomaticFeatureInteractionModel, attention),
        "afn": (AdaptiveFactorizationNetwork, (p.embed, p.neurons, p.mlp, dropouts)),
    }
    build, sizes = models[preset.model]
    return build(field_dims, *sizes)


def torchfm_step(preset: Preset, field_dims: tuple[int, ...], batch: Batch, fused: bool) -> Step:
    """A step as in torchfm's example."""
    torch.manual_seed(0)
    model = torchfm_model(preset, field_dims).to(batch.fields.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.lr, fused=fused or None)
    fields = batch.fields.long()

    def step() -> None:
        loss = F.binary_cross_entropy(model(fields), batch.labels)
        model.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def draw(config: Config) -> tuple[tuple[int, ...], Batch]:
    """The fields' sizes and the batch of every step."""
    field_dims = criteo_like(config.categories)
    return field_dims, draw_batch(field_dims, config.batch, config.device)


def title(model: str, config: Config) -> str:
    """What a table calls a model on this batch."""
    return f"{MODELS[model]}, {config.categories:,} categories, batch {config.batch}"


def make_training(preset: Preset, field_dims: tuple[int, ...], device: str = "cpu") -> Training:
    """This project's training of a preset."""
    return Training(preset, field_dims, torch.device(device))


def our_step(preset: Preset, field_dims: tuple[int, ...], batch: Batch) -> Step:
    """A step of `recsys.train` on a batch, ready to be called again and again."""
    return partial(make_training(preset, field_dims, str(batch.fields.device)).step, batch)


def find(model: str, method: str, batch: int) -> Preset:
    """The published preset, with the dropout of backpropagation's and without clipping."""
    dropout = PUBLISHED[f"{model}_bp"].dropout
    return replace(PUBLISHED[f"{model}_{method}"], batch=batch, dropout=dropout, clip_norm=None)


def products(preset: Preset, field_dims: tuple[int, ...], rows: int = 8) -> int:
    """Floating point operations of the matrix products of one step; attention's own are not seen on a CPU."""
    training, batch = make_training(preset, field_dims), draw_batch(field_dims, rows, "cpu")
    with FlopCounterMode(display=False) as counter:
        training.step(batch)
    return counter.get_total_flops()


def limit(dfa: Preset, bp: Preset, fields: int) -> float:
    """Products of a DFA step over those of a backpropagation step; they do not depend on the number of categories."""
    ours, theirs = (products(preset, (3,) * fields) for preset in (dfa, bp))
    return ours / theirs


def measure(model: str, config: Config) -> list[dict[str, Any]]:
    """One row per contestant."""
    field_dims, batch = draw(config)
    methods = (Method.BP,) if model == "fm" else (Method.BP, Method.DFA)
    presets = {method.value: find(model, method, config.batch) for method in methods}
    steps: dict[str, Step] = {
        "torchfm": torchfm_step(presets["bp"], field_dims, batch, fused=False),
        "torchfm, fused": torchfm_step(presets["bp"], field_dims, batch, fused=True),
    }
    for name, preset in presets.items():
        steps[name] = our_step(preset, field_dims, batch)
    times = interleave(steps, config.rounds, warm_up=1, device=config.device)
    allowed = limit(presets["dfa"], presets["bp"], len(field_dims)) if "dfa" in presets else None
    return [
        {
            "model": model,
            "contestant": name,
            "ms a step": round(statistics.median(times[name]) * 1e3, 1),
            "ratio to torchfm": round(ratio(times, name, "torchfm"), 3),
            "ratio to torchfm, fused": round(ratio(times, name, "torchfm, fused"), 3),
            "ratio to BP": round(ratio(times, name, "bp"), 3),
            "limit": round(allowed, 3) if allowed is not None and name == "dfa" else None,
            "target": TARGET_DCN if (model, name) == ("dcn", "dfa") else TARGETS.get(name),
        }
        for name in steps
    ]


def main(config: Config) -> None:
    """Run the rounds of every model and print the table."""
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(config.threads)
    rows = [row for model in config.models for row in measure(model, config)]
    title = f"A step on {config.batch} rows, {config.categories:,} categories, {config.threads} thread(s)"
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()))
    console = Console(width=140)
    console.print(table)
    ours = [row["ratio to torchfm"] for row in rows if row["contestant"] == "bp"]
    console.print(f"Backpropagation to torchfm, median over models: {statistics.median(ours)}, target {TARGET_MEDIAN}")
    if config.out is not None:
        save(config.out, config.device, rows)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
