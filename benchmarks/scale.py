"""How large the contests of `python -m benchmarks` are, and where they take place."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What keeps two cores busy leaves a GPU waiting for its next kernel, so that a GPU gets larger batches."""

    quick: bool = False
    device: str = "cpu"

    @property
    def large(self) -> bool:
        """Whether batches are those of a GPU."""
        return not self.quick and torch.device(self.device).type == "cuda"
