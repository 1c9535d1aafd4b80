"""The options that every training command of this task shares."""

from __future__ import annotations

from dataclasses import dataclass

from harness import config

# Why accelerate and torchrun are refused.
ALONE = "an epoch is one step on the whole graph, which processes cannot share"


@dataclass(frozen=True, kw_only=True)
class BaseConfig(config.BaseConfig):
    """Which graph, where it runs and where it writes."""

    dataset: str = "synthetic"
    """cora, citeseer, pubmed, or synthetic, which needs no files."""
    checkpoint_every: int = 50
    """Epochs between checkpoints."""

    def lengths(self) -> dict[str, str]:
        """A run can be prolonged: nothing in it depends on its length."""
        return {"epochs": ""}
