"""The arguments that every command of this task shares."""

from __future__ import annotations

from dataclasses import dataclass

from harness import config


@dataclass(frozen=True, kw_only=True)
class RunConfig(config.RunConfig):
    """Which scene, which method, where it runs and where it writes."""

    dataset: str = "synthetic"
    """synthetic, which needs no files, blender or llff."""
    scene: str | None = None
    """Name of the scene, such as lego or fern; the data set's first one if left out."""
    epochs: config.Unused = None  # length is told in --steps
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
