"""One step of training, and what is remembered of all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.precision import autocast, products
from harness.processes import ALONE, Processes
from nerf.field.fields import Fields
from nerf.field.occupancy import OccupancyGrid
from nerf.field.volume import densities, render_rays
from nerf.output.scores import psnr
from nerf.scene.rays import Rays, pick

GRID_EVERY = 16  # steps between two updates of the grid
GRID_ROUNDS = 8  # updates in which every cell has its turn
GRID_WARMUP = 32  # updates before it is believed


def drawing(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The generator of one step: what a step draws depends on `seed` and `step` alone, however often it is resumed."""
    number = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    return torch.Generator(device).manual_seed(number)


def train_step(
    fields: Fields,
    rays: Rays,
    colours: Tensor,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    *,
    batch: int,
    chunk: int,
    processes: Processes = ALONE,
) -> Tensor:
    """One step on `batch` of the `rays`, drawn with replacement, whose colours are ``[R, 3]``.

    The loss is the mean squared error of the colours by the coarse and by the fine network, added. Gradients are
    summed over `chunk` rays at a time, which keeps a step's memory small and, on a CPU, in its cache.

    Several processes draw the same rays, render a share of every chunk each, and average their gradients.

    Returns:
        Mean squared errors of the coarse and of the fine network, ``[2]``, before the step; of one network, twice.
    """
    index = torch.randint(len(colours), (batch,), generator=generator, device=colours.device)
    errors, precision = torch.zeros(2, device=colours.device), fields.rendering.precision
    own, count = slice(processes.rank, None, processes.size), 3 * batch / processes.size
    optimizer.zero_grad()
    for part in index.split(chunk):
        truth = colours[part[own]]
        with products(precision):
            with autocast(precision, truth):
                seen = render_rays(fields, pick(rays, part), generator, own)
            fine = (seen.colour - truth).square().sum()
            coarse = fine if fields.fine is None else (seen.coarse - truth).square().sum()
            loss = fine if fields.fine is None else coarse + fine
            (loss / count).backward()
        errors += torch.stack([coarse, fine]).detach() / count
    gradients = [parameter.grad for parameter in fields.parameters() if parameter.grad is not None]
    processes.average([*gradients, errors])
    optimizer.step()
    return errors


def check_share(batch: int, chunk: int, processes: Processes) -> None:
    """Raise `UserError` where a chunk has fewer rays than there are processes."""
    least = batch % chunk or min(batch, chunk)
    if least < processes.size:
        raise UserError(
            f"--rays {batch}, {chunk} at once, leave {least} for {processes.size} processes. Give more rays, or "
            "another --chunk."
        )


def make_grid(bounds: Tensor, samples: int) -> OccupancyGrid:
    """A grid over a scene's bounds, ``[2, 3]``, for rays that ask about `samples` places along it."""
    step = float((bounds[1] - bounds[0]).norm()) / samples
    return OccupancyGrid(bounds, step=step, warmup=GRID_WARMUP, rounds=GRID_ROUNDS)


def update_grid(grid: OccupancyGrid, fields: Fields) -> None:
    """Ask the network that draws the picture about this round's cells."""
    network = fields.fine or fields.coarse
    anywhere = grid.bounds.new_tensor([[0.0, 0.0, 1.0]])  # density does not depend on the direction
    with products(fields.rendering.precision):
        grid.update(lambda points: densities(network(points, anywhere)[:, 3], fields.rendering.density))


@dataclass
class History:
    """Points on the curves, each for the steps since the one before it, all but `step` in dB; and the speed so far."""

    step: list[int] = field(default_factory=list)
    train_psnr: list[float] = field(default_factory=list)  # of the fine network on training rays
    train_coarse_psnr: list[float] = field(default_factory=list)
    test_psnr: list[float] = field(default_factory=list)  # of some pixels of two test views; it chooses nothing
    rays: int = 0  # that steps took since the beginning
    seconds: float = 0.0  # and how long those steps took

    def add(self, step: int, coarse: float, fine: float, test: float) -> dict[str, float]:
        """Append a point, from mean squared errors, and return it by name."""
        point = {"train_psnr": psnr(fine), "train_coarse_psnr": psnr(coarse), "test_psnr": psnr(test)}
        self.step.append(step)
        for name, value in point.items():
            getattr(self, name).append(value)
        return point

    def curves(self) -> dict[str, Any]:
        """The lists that figures are drawn from."""
        return {name: value for name, value in vars(self).items() if isinstance(value, list)}

    def rays_per_second(self) -> float:
        """Of all steps whose time is known; not a number where a checkpoint of before kept none."""
        return self.rays / self.seconds if self.seconds else math.nan
