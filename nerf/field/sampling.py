"""Depths of samples along rays: evenly spaced at first, then more where the coarse network found density.

Depths are multiples of the ray's direction, from `near` to `far`. Source: NeRF (arXiv 2003.08934), eq. 2 and sec. 5.2.
Letters: R rays, S samples a ray.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ALL = slice(None)
FLOOR = 1e-5  # added to every weight: a ray that met nothing is sampled evenly


class Draws(NamedTuple):
    """Random numbers for rays, of which only some are rendered here.

    Numbers are drawn for all of them: a ray gets the same ones, however many processes share the rays.
    """

    generator: torch.Generator
    rays: int  # to draw for
    own: slice | Tensor = ALL  # those that are rendered here: a slice or a mask

    def uniform(self, columns: int) -> Tensor:
        """Uniform numbers in [0, 1), a row for each own ray: ``[R, columns]``."""
        drawn = torch.rand(self.rays, columns, generator=self.generator, device=self.generator.device)
        return drawn[self.own].contiguous()

    def normal(self, columns: int) -> Tensor:
        """Standard normal numbers, ``[R, columns]``."""
        drawn = torch.randn(self.rays, columns, generator=self.generator, device=self.generator.device)
        return drawn[self.own]


def even_depths(near: Tensor, far: Tensor, samples: int, draws: Draws | None = None) -> Tensor:
    """Depths from `near` to `far`, ``[R, 1]`` each, in order: ``[R, samples]``.

    Without `draws` they are evenly spaced, ends included; with them, each is drawn uniformly from the part of
    the ray that is nearer to its place than to the neighbouring ones.

    Example:
        >>> even_depths(torch.tensor([[2.0]]), torch.tensor([[6.0]]), 5)
        tensor([[2., 3., 4., 5., 6.]])
    """
    depths = torch.lerp(near, far, torch.linspace(0, 1, samples, device=near.device))
    if draws is None:
        return depths
    middles = (depths[:, 1:] + depths[:, :-1]) / 2
    lower = torch.cat([depths[:, :1], middles], dim=1)
    upper = torch.cat([middles, depths[:, -1:]], dim=1)
    return torch.lerp(lower, upper, draws.uniform(samples))


def draw_depths(edges: Tensor, weights: Tensor, samples: int, draws: Draws | None = None) -> Tensor:
    """Depths drawn from a density that is constant between two edges and proportional to `weights` there.

    Args:
        edges: In ascending order, ``[R, S + 1]``.
        weights: Not negative, ``[R, S]``; `FLOOR` is added to each.
        samples: How many to draw.
        draws: Random numbers for the quantiles; None: evenly spaced ones, ends included.

    Returns:
        ``[R, samples]``, in order only without `draws`.

    Example:
        >>> edges, weights = torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[0.0, 1.0, 0.0]])
        >>> draw_depths(edges, weights, 5)[0, 1:-1].round(decimals=2)
        tensor([1.2500, 1.5000, 1.7500])
    """
    weights = weights + FLOOR
    share = weights / weights.sum(dim=1, keepdim=True)
    below = torch.nn.functional.pad(share.cumsum(dim=1), (1, 0))  # [R, S + 1]: probability below each edge
    if draws is None:
        quantiles = torch.linspace(0, 1, samples, device=edges.device).expand(len(edges), samples).contiguous()
    else:
        quantiles = draws.uniform(samples)
    bins = torch.searchsorted(below, quantiles, right=True).sub_(1).clamp_(0, weights.shape[1] - 1)
    within = (quantiles - below.gather(1, bins)) / share.gather(1, bins)
    return torch.lerp(edges.gather(1, bins), edges.gather(1, bins + 1), within.clamp_(0, 1))


def finer_depths(depths: Tensor, weights: Tensor, samples: int, draws: Draws | None = None) -> Tensor:
    """The coarse `depths`, ``[R, S]``, and `samples` more by their `weights`, ``[R, S]``, all in order.

    The edges lie midway between depths, so the first and the last weight, which have one edge only, are not used.
    """
    middles = (depths[:, 1:] + depths[:, :-1]) / 2
    drawn = draw_depths(middles, weights[:, 1:-1], samples, draws)
    return torch.cat([depths, drawn], dim=1).sort(dim=1).values
