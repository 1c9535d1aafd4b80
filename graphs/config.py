"""What every command of this task shares: its arguments, and how its result is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError
from harness.results import make_result
from harness.run import Run
from tinydfa import Method


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Which data, which method, where it runs and where it writes."""

    dataset: str = "synthetic"
    """cora, citeseer, pubmed, or synthetic, which needs no files."""
    method: Method | None = None
    """How hidden layers learn; dfa if left out."""
    seed: int = 0
    """Seed of the weights, the feedback, dropout and any split that is drawn."""
    epochs: int | None = None
    """Full-batch steps; the published number if left out."""
    data_dir: Path | None = None
    """Data root; else $DFA_DATA, else the user's cache folder."""
    out: Path | None = None
    """Folder of the run; else runs/graphs/<name>."""
    resume: bool = False
    """Continue an interrupted run."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    checkpoint_every: int = 50
    """Epochs between checkpoints."""

    def __post_init__(self) -> None:
        for option, value in (("--epochs", self.epochs), ("--checkpoint-every", self.checkpoint_every)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: give at least 1.")


def conclude(
    config: RunConfig,
    run: Run | None,
    settings: dict[str, Any],
    *,
    model: str,
    metrics: dict[str, float],
    curves: dict[str, list[float]],
    device: torch.device,
    seconds: float,
) -> dict[str, Any]:
    """The result of a training: written and printed by its `run` if there is one, else only returned."""
    about: dict[str, Any] = {"model": model, "dataset": config.dataset, "seed": config.seed, "device": device}
    about |= {"method": settings["method"], "metrics": metrics, "curves": curves}
    if run is not None:
        return run.finish(**about)
    return make_result(task="graphs", config=settings, seconds=seconds, **about)
