"""What decides a number of the bottleneck experiment; the defaults are those of arXiv 1906.04554."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.config import Method as MethodOption
from harness.errors import UserError
from harness.methods import named
from harness.precision import Precision
from tinydfa import Method
from vision.bottleneck.model import check_size
from vision.preset import Preset
from vision.principled.presets import PRESETS

LAYERS = 3  # hidden
PLAIN = PRESETS["principled_fc_tanh_dfa"]


@dataclass(frozen=True, kw_only=True)
class BottleneckPreset:
    """Its fields are options; the published settings are the defaults."""

    method: MethodOption = Method.DFA
    keep: int | None = None
    """b: entries that the middle layer's gradients keep, of as many as it is wide; all if left out."""
    init: Literal["std", "pai"] = "std"
    """Initial weights: std, PyTorch's; pai, pre-aligned with the feedback (see vision.bottleneck.prealign)."""
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
        object.__setattr__(self, "method", named(self.method))
        if self.method not in (Method.BP, Method.DFA):
            raise UserError(f"--method {self.method}: this experiment compares bp and dfa. Choose one.")
        if self.width < 1:
            raise UserError(f"--width {self.width}: give at least 1.")
        check_size(self.kept, self.width)
        self.training()

    @property
    def kept(self) -> int:
        """b."""
        return self.width if self.keep is None else self.keep

    def training(self) -> Preset:
        """How the network is trained."""
        plain = PRESETS[f"principled_fc_tanh_{self.method}"]
        ours: dict[str, Any] = {"lr": self.lr, "batch": self.batch, "epochs": self.epochs, "precision": self.precision}
        return replace(plain, hidden=(self.width,) * LAYERS, **ours)

    def narrowed(self, width: int) -> BottleneckPreset:
        """The same with another width, and a bottleneck as narrow relative to it.

        Example:
            >>> BottleneckPreset(keep=191).narrowed(64).kept
            15
        """
        return replace(self, width=width, keep=max(1, self.kept * width // self.width))
