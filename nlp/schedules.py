"""Optimizers and learning rate schedules, by the names of the 2020 release.

noam      Adam; lr d^(-1/2) min(s^(-1/2), s warmup^(-3/2)) at step s, from 1 (Vaswani et al. 2017, section 5.3)
adam      Adam; constant
onecycle  Adam; up to lr and down again over the whole training, every step (the release moved once an epoch)
radam     RAdam; constant
plateau   Adam; times `plateau_factor` when the validation perplexity has not improved for more than
          `plateau_patience` validations
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from nlp.presets import Preset

EPSILON = 1e-9  # of Adam and RAdam, as published


def make_optimizer(preset: Preset, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, or RAdam for the schedule of that name, at the preset's learning rate and betas."""
    if preset.schedule == "radam":
        return torch.optim.RAdam(parameters, lr=preset.lr, betas=preset.betas, eps=EPSILON, foreach=True)
    return torch.optim.Adam(parameters, lr=preset.lr, betas=preset.betas, eps=EPSILON, fused=True)


class Schedule:
    """The learning rate of an optimizer over a training.

    Args:
        preset: Names the schedule.
        optimizer: Made by `make_optimizer`.
        steps: Of the whole training, for onecycle.
    """

    def __init__(self, preset: Preset, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self.optimizer = optimizer
        self.by_step: LambdaLR | OneCycleLR | None = None
        self.by_score: ReduceLROnPlateau | None = None
        self.left = steps
        match preset.schedule:
            case "noam":
                self.by_step = LambdaLR(optimizer, lambda done: noam(done + 1, preset.d_model, preset.warmup))
            case "onecycle":
                self.by_step = OneCycleLR(optimizer, max_lr=preset.lr, total_steps=steps, cycle_momentum=False)
            case "plateau":
                self.by_score = ReduceLROnPlateau(
                    optimizer, factor=preset.plateau_factor, patience=preset.plateau_patience
                )

    def step(self) -> None:
        """Call after each step of the optimiser."""
        self.left -= 1
        if isinstance(self.by_step, OneCycleLR) and self.left <= 0:
            return  # it has no learning rate beyond the last step
        if self.by_step is not None:
            self.by_step.step()

    def validated(self, perplexity: float) -> None:
        """Call after each validation."""
        if self.by_score is not None:
            self.by_score.step(perplexity)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; the learning rate itself is in the optimiser's."""
        scheduler = self.by_step or self.by_score
        return {"left": self.left, "scheduler": None if scheduler is None else scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.left = state["left"]
        scheduler = self.by_step or self.by_score
        if scheduler is not None:
            scheduler.load_state_dict(state["scheduler"])


def noam(step: int, width: int, warmup: int) -> float:
    """The learning rate at `step` (1, 2, ...) for a factor of 1.

    Example:
        >>> round(noam(4000, 512, 4000), 6), round(noam(16_000, 512, 4000), 6)
        (0.000699, 0.000349)
    """
    return float(width**-0.5 * min(step**-0.5, step * warmup**-1.5))
