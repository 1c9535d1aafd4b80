"""One step of training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.precision import autocast, products
from harness.processes import ALONE, Processes
from nerf.field.fields import Fields
from nerf.field.occupancy import OccupancyGrid
from nerf.field.volume import densities, render_rays
from nerf.scene.rays import Rays, pick

GRID_EVERY = 16  # steps between two updates of the grid
GRID_ROUNDS = 8  # updates that together visit every cell once
GRID_WARMUP = 32  # updates before the grid is used


def drawing(seed: int, step: int, device: torch.device) -> torch.Generator:
    """The random generator of one step. It depends on `seed` and `step` alone, so a resumed run draws the same."""
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
    """An occupancy grid over a scene's bounds, ``[2, 3]``, for rays with `samples` coarse samples."""
    step = float((bounds[1] - bounds[0]).norm()) / samples
    return OccupancyGrid(bounds, step=step, warmup=GRID_WARMUP, rounds=GRID_ROUNDS)


def update_grid(grid: OccupancyGrid, fields: Fields) -> None:
    """Evaluate the density of the fine network (or the only one) in this round's cells."""
    network = fields.fine or fields.coarse
    anywhere = grid.bounds.new_tensor([[0.0, 0.0, 1.0]])  # density does not depend on the direction
    with products(fields.rendering.precision):
        grid.update(lambda points: densities(network(points, anywhere)[:, 3], fields.rendering.density))
