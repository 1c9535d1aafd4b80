"""What decides a number of the bottleneck experiment; the defaults are those of arXiv 1906.04554."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from harness.errors import UserError
from harness.precision import Precision
from tinydfa import Method
from vision.bottleneck.model import check_size
from vision.preset import Preset
from vision.principled.presets import PRESETS

LAYERS = 3  # hidden
PLAIN = PRESETS["principled_fc_tanh_dfa"]


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """The published settings are the defaults."""

    method: str = Method.DFA
    size: int | None = None
    """b: entries that the middle layer's gradients keep, of as many as it is wide; all if left out."""
    init: Literal["std", "pai"] = "std"
    """Initial weights. std: torch's; pai: pre-aligned with the feedback (see vision.bottleneck.prealign)."""
    width: int = PLAIN.hidden[0]
    """Width of the three hidden layers."""
    lr: float = PLAIN.lr
    """Learning rate."""
    batch: int = PLAIN.batch
    """Images a step."""
    epochs: int = PLAIN.epochs
    """Passes over the training data."""
    precision: Precision = "fp32"
    """bf16: products of numbers rounded to bfloat16."""

    def __post_init__(self) -> None:
        if self.method not in (Method.BP, Method.DFA):
            raise UserError(f"--method {self.method}: this experiment compares bp and dfa. Choose one.")
        if self.width < 1:
            raise UserError(f"--width {self.width}: give at least 1.")
        check_size(self.kept, self.width)

    @property
    def kept(self) -> int:
        """b."""
        return self.width if self.size is None else self.size

    def training(self) -> Preset:
        """How the network is trained."""
        plain = PRESETS[f"principled_fc_tanh_{self.method}"]
        ours = {"lr": self.lr, "batch": self.batch, "epochs": self.epochs, "precision": self.precision}
        return replace(plain, hidden=(self.width,) * LAYERS, **ours)

    def narrowed(self, width: int) -> Bottleneck:
        """The same with another width, and a bottleneck as narrow relative to it.

        Example:
            >>> Bottleneck(size=191).narrowed(64).kept
            15
        """
        return replace(self, width=width, size=max(1, self.kept * width // self.width))
