"""Measurements during a training: the points of its curves, and the speed of its steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from harness.processes import current
from harness.run import Run, check_loss
from harness.run.stateful import Record
from nerf.config import Config
from nerf.field.fields import Fields
from nerf.field.volume import render_view
from nerf.output.alignment import network_alignment
from nerf.output.scores import evenly, psnr
from nerf.scene.rays import Rays, pick, view_rays
from nerf.scene.views import Scene

CURVE_PIXELS = 1024  # of each of the two test views behind the curve of a run


@dataclass
class History(Record):
    """Points on the curves, each for the steps since the one before it, all but `step` in dB; and the speed so far."""

    step: list[int] = field(default_factory=list)
    train_psnr: list[float] = field(default_factory=list)  # of the fine network on training rays
    train_coarse_psnr: list[float] = field(default_factory=list)
    test_psnr: list[float] = field(default_factory=list)  # of some pixels of two test views; not used for selection
    rays: int = 0  # rendered in all steps so far
    seconds: float = 0.0  # duration of those steps
    alignment: dict[str, list[float]] = field(default_factory=dict)  # with backpropagation, by feedback point

    def add(self, step: int, coarse: float, fine: float, test: float) -> dict[str, float]:
        """Append a point, from mean squared errors, and return it by name."""
        point = {"train_psnr": psnr(fine), "train_coarse_psnr": psnr(coarse), "test_psnr": psnr(test)}
        self.step.append(step)
        for name, value in point.items():
            getattr(self, name).append(value)
        return point

    def align(self, step: int, cosines: dict[str, float]) -> None:
        """Append a measurement of the alignment."""
        for name, value in ({"alignment_step": step} | cosines).items():
            self.alignment.setdefault(name, []).append(value)

    def curves(self) -> dict[str, Any]:
        """The lists that figures are drawn from."""
        return {name: value for name, value in vars(self).items() if isinstance(value, list)} | self.alignment

    def metrics(self) -> dict[str, float]:
        """The last of what was measured on training rays, and the speed."""
        last = {name: values[-1] for name, values in self.alignment.items() if name != "alignment_step"}
        return {"train_psnr": self.train_psnr[-1], "rays_per_second": self.rays_per_second()} | last

    def rays_per_second(self) -> float:
        """Speed over all timed steps; NaN if an older checkpoint recorded no time."""
        return self.rays / self.seconds if self.seconds else math.nan


class Pending:
    """Squared errors since the last point of the curves, ``[2]``: coarse and fine, summed on the device."""

    def __init__(self, device: torch.device) -> None:
        self.errors = torch.zeros(2, device=device)

    def state_dict(self) -> Tensor:
        """The sums."""
        return self.errors

    def load_state_dict(self, state: Tensor) -> None:
        """Restore what `state_dict` returned."""
        self.errors.copy_(state)


class Curves:
    """Takes the measurements of a training.

    Args:
        config: The run.
        fields: What is trained.
        scene: What it is trained on, on the fields' device.
        rays: All training rays, R of them.
        colours: What they see, ``[R, 3]``.
    """

    def __init__(self, config: Config, fields: Fields, scene: Scene, rays: Rays, colours: Tensor) -> None:
        self.config, self.preset, self.fields, self.scene = config, config.preset, fields, scene
        self.rays, self.colours, self.chunk = rays, colours, config.chunk_on(colours.device)
        self.every = config.log_every or max(self.preset.steps // 20, 1)
        self.history, self.pending = History(), Pending(colours.device)
        self._since = perf_counter()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this, by name."""
        return {"history": self.history, "pending": self.pending}

    def steps(self, done: int) -> Iterator[int]:
        """The steps after the first `done`; the clock starts."""
        self._since = perf_counter()
        yield from range(done + 1, self.preset.steps + 1)

    def add(self, errors: Tensor) -> None:
        """A step is done, with these mean squared errors of the coarse and the fine network, ``[2]``."""
        self.pending.errors += errors
        self.history.rays += self.preset.rays

    def logs(self, step: int) -> bool:
        """Whether a point of the curves is due."""
        return step % self.every == 0 or step == self.preset.steps

    def aligns(self, step: int) -> bool:
        """Whether a measurement of the alignment is due."""
        return self.config.alignment_every is not None and step % self.config.alignment_every == 0

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due."""
        return step % self.config.checkpoint_every == 0 or step == self.preset.steps

    @contextmanager
    def paused(self, step: int) -> Iterator[None]:
        """Inside this block the clock of the steps is stopped.

        Raises:
            NonFiniteLoss: the loss is not finite.
        """
        check_loss(self.pending.errors.sum().item(), step)  # waits for the device
        self.history.seconds += perf_counter() - self._since
        yield
        self._since = perf_counter()

    def log(self, step: int, run: Run) -> None:
        """Measure what is due after `step`."""
        if self.aligns(step):
            cosines = network_alignment(self.fields, self.rays, self.colours)
            self.history.align(step, cosines)
            run.log(step, **cosines)
        if self.logs(step):
            coarse, fine = (self.pending.errors / (step - (self.history.step or [0])[-1])).tolist()
            numbers = self.history.add(step, coarse, fine, self.test_error())
            self.pending.errors.zero_()
            run.log(step, **numbers)

    @torch.no_grad()
    def test_error(self) -> float:
        """Mean squared error on evenly spaced pixels of two test views."""
        views, parts = self.scene.test, []
        for index in evenly(len(views), 2):
            truth = views.images[index].reshape(-1, 3)
            pixels = torch.tensor(evenly(len(truth), CURVE_PIXELS), device=truth.device)
            rays = pick(view_rays(self.scene, views, index), pixels)
            seen = render_view(self.fields, rays, chunk=self.chunk, processes=current())
            parts.append((seen.colour - truth[pixels]).square())
        return torch.cat(parts).mean().item()
