"""An occupancy grid: the networks are not evaluated in empty space.

A grid over the scene's bounds remembers the density s that the network gave in each cell. An update draws one point
x in each cell it visits and keeps a decaying maximum,

    m <- max(decay m, s(x)).

A cell is full if a sample of length `step` in it would have an opacity of at least `threshold`, or of at least the mean
over all cells where that is less: ``1 - exp(-m step) >= min(threshold, mean)``. In a field
without density every cell thus counts as full, so that it can grow. Samples are evaluated in full cells and their 26
neighbours; during warm-up, and until every cell has been visited, everywhere.

The decaying maximum is that of instant-ngp (Müller et al. 2022, arXiv 2201.05989, appendix C), the least of threshold
and mean that of nerfacc (Li et al. 2023, arXiv 2305.04966). Letters: G cells a side, P points.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Density = Callable[[Tensor], Tensor]  # points [P, 3] to densities [P], not negative
CHUNK = 1 << 16  # points evaluated at once


class OccupancyGrid(nn.Module):
    """A grid of ``G x G x G`` cells; its `state_dict` is complete.

    Args:
        bounds: Lower and upper corner of the box, ``[2, 3]``. Outside of it everything is empty.
        resolution: G.
        step: Length of a sample, in the unit in which density is per length.
        threshold: Opacity from which on a cell is full.
        decay: Factor of an old maximum at a visit.
        warmup: Updates during which everything is evaluated, at least `rounds`.
        rounds: An update visits every `rounds`-th cell, in turn, so that a large grid costs little.
    """

    maximum: Tensor
    full: Tensor
    updates: Tensor
    bounds: Tensor

    def __init__(
        self,
        bounds: Tensor,
        resolution: int = 64,
        *,
        step: float,
        threshold: float = 0.01,
        decay: float = 0.95,
        warmup: int = 16,
        rounds: int = 1,
    ) -> None:
        super().__init__()
        self.resolution, self.step, self.threshold, self.decay = resolution, step, threshold, decay
        self.warmup, self.rounds = max(warmup, rounds), rounds
        self.register_buffer("bounds", bounds.clone())
        self.register_buffer("maximum", torch.zeros(resolution**3, device=bounds.device))
        self.register_buffer("full", torch.ones(resolution**3, dtype=torch.bool, device=bounds.device))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._warm = True  # `updates < warmup`, without synchronising the device
        self.register_load_state_dict_post_hook(_go_on)

    @torch.no_grad()
    def update(self, density: Density) -> None:
        """Evaluate `density` at one point in each cell of this round, and decide again which cells are full.

        The points depend on the number of updates so far alone: the same in every process, and after a resume.
        """
        count = int(self.updates)
        cells = torch.arange(count % self.rounds, self.resolution**3, self.rounds)
        jitter = torch.rand(len(cells), 3, generator=torch.Generator().manual_seed(count))
        lower, upper = self.bounds
        for part, shift in zip(cells.split(CHUNK), jitter.split(CHUNK), strict=True):
            place = torch.stack(torch.unravel_index(part, (self.resolution,) * 3), dim=1) + shift
            points = torch.lerp(lower, upper, (place / self.resolution).to(lower))
            index = part.to(lower.device)
            new = density(points).to(self.maximum)
            self.maximum[index] = torch.maximum(self.maximum[index] * self.decay, new)
        self.updates += 1
        self._decide()

    def forward(self, points: Tensor) -> Tensor:
        """Whether something may be at `points`, ``[..., 3]``: ``[...]``, bool."""
        lower, upper = self.bounds
        inside = ((points >= lower) & (points <= upper)).all(dim=-1)
        if self._warm:
            return torch.ones_like(inside)
        cell = ((points - lower) / (upper - lower) * self.resolution).long().clamp_(0, self.resolution - 1)
        index = (cell[..., 0] * self.resolution + cell[..., 1]) * self.resolution + cell[..., 2]
        return self.full[index] & inside

    occupied = forward

    @property
    def share(self) -> float:
        """The share of the box that is evaluated, 0 to 1."""
        return float(self.full.float().mean())

    def _decide(self) -> None:
        """Which cells are full, and their neighbours."""
        self._warm = int(self.updates) < self.warmup
        if self._warm:
            return
        opacity = -torch.expm1(-self.maximum * self.step)
        full = opacity >= opacity.double().mean().clamp(max=self.threshold)
        grid = full.float().reshape(1, 1, *(self.resolution,) * 3)
        self.full.copy_(F.max_pool3d(grid, kernel_size=3, stride=1, padding=1).flatten() > 0)


def _go_on(grid: OccupancyGrid, _keys: object) -> None:
    """Decide again after the maximum was loaded."""
    grid._decide()
