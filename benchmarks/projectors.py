"""Memory and time of what projects: `python -m benchmarks.projectors`.

A language model takes its error at the logits, so that F has a row for every word of the vocabulary. It is trained by
DFA with F stored, with F computed anew in every pass (`tinydfa.NeverStored`), and through a simulated optical unit.
They take turns in one run, beside backpropagation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.allocations import peak_bytes
from benchmarks.environment import save
from benchmarks.models import PostNormTransformer, sgd_step
from benchmarks.step_time import show
from benchmarks.timing import Step, interleave, ratio
from tinydfa import Feedback, NeverStored, OpticalUnit, attach

PROJECTORS: dict[str, Callable[[], Any]] = {
    "stored": Feedback,
    "never stored": NeverStored,
    "optical unit, simulated": OpticalUnit,
}


@dataclass(frozen=True)
class Config:
    """Measure projectors."""

    vocabulary: int = 8000
    """c."""
    width: int = 256
    """d."""
    blocks: int = 2
    """Blocks of the Transformer, with a feedback point each."""
    rounds: int = 10
    """Steps of each."""
    threads: int = 1
    """Of the processor."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""


def contestant(config: Config, project: Callable[[], Any] | None) -> tuple[Step, Callable[[], int]]:
    """A training step, and how many bytes of feedback are stored after it; by backpropagation without a projector."""
    torch.manual_seed(0)
    model = PostNormTransformer(config.vocabulary, config.width, config.blocks, heads=4)
    inputs, targets = torch.randint(0, config.vocabulary, (2, 4, 32)).unbind()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    attachment = None if project is None else attach(model, "dfa", points=["blocks.*"], feedback=project())

    def stored() -> int:
        head = None if attachment is None else attachment.head
        matrix = None if head is None else head.feedback_matrix
        return 0 if matrix is None else matrix.nbytes

    return lambda: sgd_step(model, optimizer, inputs, targets), stored


def measure(config: Config) -> list[dict[str, Any]]:
    """One row for backpropagation and for every projector."""
    found = {"bp": contestant(config, None)}
    found |= {f"dfa, {name}": contestant(config, project) for name, project in PROJECTORS.items()}
    times = interleave({name: step for name, (step, _) in found.items()}, config.rounds)
    sizes = f"vocabulary {config.vocabulary}, {config.blocks} x d {config.width}"
    return [
        {
            "model": f"Transformer, {sizes}",
            "feedback": name,
            "ms a step": round(statistics.median(times[name]) * 1e3, 2),
            "ratio to BP": round(ratio(times, name, "bp"), 3),
            "stored MiB": round(stored() / 2**20, 2),
            "peak MiB": round(peak_bytes(step) / 2**20, 1),
        }
        for name, (step, stored) in found.items()
    ]


def main(config: Config) -> None:
    """Run the rounds and print the table."""
    torch.set_num_threads(config.threads)
    rows = measure(config)
    show(rows)
    if config.out is not None:
        save(config.out, "cpu", rows)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
