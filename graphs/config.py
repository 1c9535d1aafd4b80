"""The arguments that every command of this task shares."""

from __future__ import annotations

from dataclasses import dataclass

from harness import config


@dataclass(frozen=True, kw_only=True)
class RunConfig(config.RunConfig):
    """Which graph, which method, where it runs and where it writes."""

    dataset: str = "synthetic"
    """cora, citeseer, pubmed, or synthetic, which needs no files."""
    epochs: int | None = None
    """Full-batch steps; the published number if left out."""
    checkpoint_every: int = 50
    """Epochs between checkpoints."""
