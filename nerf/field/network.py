"""The radiance field: a network from a point and a viewing direction to colour and density, with its feedback points.

    position [N, p] -> layers, ReLU ------------------------------> density
                    \\__ joins again after every fourth    \\-> feature, ReLU -> view layer, ReLU -> colour
                                          direction [V, q] __________________/

A feedback point stands after every hidden layer, after the feature layer and after the view layer; the error is taken
at the four outputs of every sample. Or it is taken at the trunk's top, ``[N, W]``: what is above it is then exact, and
has no points. Sources: NeRF (arXiv 2003.08934, fig. 7); points, ReLU after the feature layer and
where the position joins again: code release of arXiv 2006.12878.

Letters: N samples, V rays, W width, p and q widths of the encoded position and direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nerf.field.encoding import encode, encoded_width
from tinydfa import DFALayer

OUTPUTS = 4  # red, green, blue, density
# Initial bias of the density, in place of one drawn around 0. At initialisation the density hardly varies in space:
# with a bias below 0, as two seeds in five draw it, it would be negative everywhere, and relu would never train.
START = 0.2


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The sizes of a network."""

    depth: int = 8  # hidden layers of the trunk
    width: int = 256
    skip_every: int = 4  # the position joins the input of layers skip_every + 2, 2 skip_every + 2, ...
    position_frequencies: int = 10
    view_frequencies: int = 4
    views: bool = True  # colour depends on the direction; without, the trunk's top gives all four outputs
    error_at: Literal["outputs", "trunk"] = "outputs"

    def joins(self, layer: int) -> bool:
        """Whether the position joins the input of hidden layer number `layer`, from 0."""
        return layer - 1 >= self.skip_every and (layer - 1) % self.skip_every == 0


class Join(nn.Module):
    """One linear layer on two inputs side by side, as two products: nothing is copied into one tensor first.

    Weights start as those of the one layer, uniform within 1 / sqrt(number of all inputs).
    """

    def __init__(self, inner: int, extra: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(inner, outputs)
        self.extra = nn.Linear(extra, outputs, bias=False)
        bound = (inner + extra) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, inner: Tensor, extra: Tensor, ray: Tensor | None = None) -> Tensor:
        """
        Args:
            inner: ``[N, inner]``.
            extra: ``[N, extra]``, or ``[V, extra]`` where the samples of a ray share it.
            ray: The row of `extra` that each row of `inner` belongs to, ``[N]``; None: equally many each, in order.
        """
        out: Tensor = self.inner(inner)
        shared: Tensor = self.extra(extra)
        if ray is not None:
            return out.add_(shared.index_select(0, ray))
        if len(shared) == len(out):
            return out.add_(shared)
        out.unflatten(0, (len(shared), -1)).add_(shared[:, None])
        return out


class Network(nn.Module):
    """A radiance field of the given architecture; it is what a method is attached to."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        positions = encoded_width(3, a.position_frequencies)
        self.layers = nn.ModuleList()
        for layer in range(a.depth):
            if layer == 0:
                self.layers.append(nn.Linear(positions, a.width))
            elif a.joins(layer):
                self.layers.append(Join(a.width, positions, a.width))
            else:
                self.layers.append(nn.Linear(a.width, a.width))
        self.points = nn.ModuleList(DFALayer() for _ in self.layers)
        if a.views:
            self.density = nn.Linear(a.width, 1)
            self.feature = nn.Linear(a.width, a.width)
            self.feature_point = DFALayer() if a.error_at == "outputs" else nn.Identity()
            self.view = Join(a.width, encoded_width(3, a.view_frequencies), a.width // 2)
            self.view_point = DFALayer() if a.error_at == "outputs" else nn.Identity()
            self.colour = nn.Linear(a.width // 2, 3)
            nn.init.constant_(self.density.bias, START)
        else:
            self.top = nn.Linear(a.width, OUTPUTS)
            nn.init.constant_(self.top.bias[3:], START)

    @property
    def output(self) -> str | None:
        """The module at whose output the error is taken; None: at the network's."""
        return f"points.{len(self.points) - 1}" if self.architecture.error_at == "trunk" else None

    def forward(self, points: Tensor, views: Tensor, ray: Tensor | None = None) -> Tensor:
        """Outputs for colour, to be put through a sigmoid, and for density, see `nerf.field.volume`.

        Args:
            points: Places, ``[N, 3]``.
            views: Unit directions of the rays, ``[V, 3]``.
            ray: Number of each sample's ray, ``[N]``; None: equally many samples a ray, ray by ray.

        Returns:
            ``[N, 4]``.
        """
        a = self.architecture
        position = encode(points, a.position_frequencies)
        h = position
        for layer, point in zip(self.layers, self.points, strict=True):
            out = layer(h, position) if isinstance(layer, Join) else layer(h)
            h = point(F.relu(out, inplace=True))
        if not a.views:
            outputs: Tensor = self.top(h)
            return outputs
        feature = self.feature_point(F.relu(self.feature(h), inplace=True))
        seen = self.view(feature, encode(views, a.view_frequencies), ray)
        seen = self.view_point(F.relu(seen, inplace=True))
        return torch.cat([self.colour(seen), self.density(h)], dim=1)
