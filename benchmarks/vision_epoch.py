"""How long an epoch on MNIST takes by each method, evaluation included.

    python -m benchmarks.vision_epoch --dataset mnist

The network is 784-500-10 with batches of 100 and Adam, as in the DRTP tables. The methods take turns; shown are medians
over rounds, the ratio to backpropagation within a round, and the share of backpropagation's products that a method
does:

    backpropagation    output and weight gradient of both layers, and the hidden layer's gradient
    broadcasting       the same products: one hidden layer's signal costs as much through F as through the weight
    shallow            no weight gradient of the hidden layer, no signal
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.environment import save
from benchmarks.timing import Step, interleave, ratio
from tinydfa import Method, attach
from vision.data.sets import load_data
from vision.data.splits import Data
from vision.models.build import build_model
from vision.optimizers import make_optimizer
from vision.preset import Preset
from vision.presets import PRESETS
from vision.training import evaluate, train_epoch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time an epoch of 784-500-10 by every method."""

    dataset: str = "digits"
    """mnist, fashion-mnist, or digits, which needs no files."""
    rounds: int = 5
    """Epochs of each method."""
    threads: int = 2
    """Threads that torch may use."""
    data_dir: Path | None = None
    """Data root; else $DFA_DATA, else the user's cache folder."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""


def epoch(preset: Preset, data: Data) -> Step:
    """A function that trains and evaluates for one epoch."""
    torch.manual_seed(0)
    model = build_model(preset, data.shape, data.outputs)
    attachment = attach(model, preset.method, feedback=preset.feedback)
    optimizer = make_optimizer(preset.optimizer, model, preset.lr)

    def run() -> None:
        train_epoch(model, data.train, optimizer, preset, attachment)
        evaluate(model, data.test, preset)

    return run


def share(method: str, inputs: int, hidden: int, outputs: int) -> float:
    """Products of a training step over those of backpropagation (per sample, in multiplications)."""
    first, second = inputs * hidden, hidden * outputs
    backprop = 2 * first + 3 * second
    return (first + 2 * second) / backprop if method is Method.SHALLOW else 1.0


def main(config: Config) -> None:
    """Run the rounds and print the table."""
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(config.threads)
    data = load_data(config.dataset, config.data_dir)
    base = PRESETS["drtp_mnist_fc1-500_bp"]
    steps = {method.value: epoch(replace(base, method=method), data) for method in Method}
    times = interleave(steps, config.rounds, warm_up=1)
    title = f"784-500-10 on {config.dataset}: an epoch, evaluation included, {config.threads} thread(s)"
    table = Table(title=title)
    for heading in ("method", "seconds", "ratio to BP", "limit"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    limit = partial(share, inputs=data.train.x[0].numel(), hidden=500, outputs=data.outputs)
    rows = []
    for method in Method:
        seconds = statistics.median(times[method.value])
        row = {"dataset": config.dataset, "method": method.value, "seconds": round(seconds, 3)}
        row |= {"ratio to BP": round(ratio(times, method.value, "bp"), 3), "limit": round(limit(method), 3)}
        rows.append(row)
        table.add_row(method.value, f"{seconds:.2f}", f"{row['ratio to BP']:.3f}", f"{row['limit']:.3f}")
    Console().print(table)
    if config.out is not None:
        save(config.out, "cpu", rows)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
