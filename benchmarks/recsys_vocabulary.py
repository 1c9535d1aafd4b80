"""Whether a training step takes longer with more categories: `--sparse-embeddings` against dense ones.

    python -m benchmarks.recsys_vocabulary --threads 1 --out results/benchmarks/recsys_vocabulary.json

The model and the rows of a batch stay the same; the tables grow from ten thousand to ten million categories. With
sparse embeddings a step touches the categories of its batch and nothing else; with dense ones Adam goes over the whole
table. Categories follow Zipf's law, so that a batch holds more different ones of a larger table; how many is told as
well. Contestants take turns; ratios are medians over rounds.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import save
from benchmarks.recsys_step import criteo_like, draw_batch, find, make_training
from benchmarks.timing import Step, interleave, ratio
from tinydfa import Method

TARGET = 1.3  # of the longest sparse step to the one with the fewest categories
BATCHES = 8  # different ones, in turn


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time a training step with ever more categories."""

    model: str = "deepfm"
    """fm, deepfm, dcn, autoint, afn."""
    method: str = Method.BP
    """How hidden layers learn."""
    categories: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    """Categories of all fields together, the smallest first."""
    dense_up_to: int = 1_000_000
    """Most categories that dense embeddings are timed with; ten million take 2 GB."""
    rounds: int = 15
    """Steps of each contestant."""
    batch: int = 2048
    """Rows of a batch."""
    threads: int = 2
    """Threads that torch may use."""
    device: str = "cpu"
    """cpu or cuda."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""


def stepper(config: Config, categories: int, sparse: bool) -> Step:
    """A step of the published preset with that many categories."""
    preset = replace(find(config.model, config.method, config.batch), sparse_embeddings=sparse)
    field_dims = criteo_like(categories)
    training = make_training(preset, field_dims, config.device)
    batches = cycle([draw_batch(field_dims, config.batch, config.device, seed) for seed in range(BATCHES)])
    return lambda: training.step(next(batches))


def different(config: Config, categories: int) -> int:
    """Different categories in a batch."""
    fields = draw_batch(criteo_like(categories), config.batch, "cpu").fields
    return sum(len(column.unique()) for column in fields.T)


def measure(config: Config) -> list[dict[str, Any]]:
    """One row per number of categories, sparse ones first."""
    cases = {(categories, True): f"{categories} sparse" for categories in config.categories}
    dense = [categories for categories in config.categories if categories <= config.dense_up_to]
    cases |= {(categories, False): f"{categories} dense" for categories in dense}
    steps = {name: stepper(config, *case) for case, name in cases.items()}
    times = interleave(steps, config.rounds, device=config.device)
    return [
        {
            "model": config.model,
            "method": str(config.method),
            "embeddings": "sparse" if sparse else "dense",
            "categories": categories,
            "different in a batch": different(config, categories),
            "ms a step": round(statistics.median(times[name]) * 1e3, 1),
            "ratio to the fewest": round(ratio(times, name, cases[min(config.categories), sparse]), 3),
            "target": TARGET if sparse else None,
        }
        for (categories, sparse), name in cases.items()
    ]


def main(config: Config) -> None:
    """Run the rounds and print the table."""
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(config.threads)
    rows = measure(config)
    table = Table(*rows[0], title=f"A step on {config.batch} rows, {config.threads} thread(s)")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()))
    Console(width=140).print(table)
    if config.out is not None:
        save(config.out, config.device, rows)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
