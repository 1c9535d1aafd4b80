"""The solids of the embedded scene and where rays meet them, in closed form.

Each solid is convex: a ray is inside it between two values of t, ``enter < leave``, or never. Letters: R rays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nerf.scene.rays import Rays

Colour = tuple[float, float, float]


class Crossing(NamedTuple):
    """Where R rays enter and leave a solid; infinite t if they miss it."""

    enter: Tensor  # [R]
    leave: Tensor  # [R]
    normal: Tensor  # [R, 3], outwards, where they enter


@dataclass(frozen=True)
class Sphere:
    """All points within `radius` of `centre`."""

    centre: tuple[float, float, float]
    radius: float
    colour: Colour

    def cross(self, origins: Tensor, directions: Tensor) -> Crossing:
        """Solve ``|o + t d - c| = r`` for each ray ``[R, 3]``."""
        offset = origins - origins.new_tensor(self.centre)
        enter, leave = _quadratic(
            (directions**2).sum(1), (offset * directions).sum(1), (offset**2).sum(1) - self.radius**2
        )
        return Crossing(enter, leave, (offset + _finite(enter)[:, None] * directions) / self.radius)

    def colours(self, points: Tensor) -> Tensor:
        """Of points ``[R, 3]`` on the surface."""
        return points.new_tensor(self.colour).expand_as(points)


@dataclass(frozen=True)
class Box:
    """A box of these half widths, turned about the vertical axis through its centre."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    colour: Colour
    turn: float = 0.0  # degrees
    second: Colour | None = None  # of every other square, seen from above
    square: float = 0.45

    def cross(self, origins: Tensor, directions: Tensor) -> Crossing:
        """Where each ray is between all three pairs of planes."""
        turn, half = self._turn(origins), origins.new_tensor(self.half)
        o, d = (origins - origins.new_tensor(self.centre)) @ turn, directions @ turn
        d = torch.where(d.abs() < 1e-9, 1e-9, d)
        one, other = (-half - o) / d, (half - o) / d
        enter, face = torch.minimum(one, other).max(dim=1)
        leave = torch.maximum(one, other).amin(dim=1)
        local = torch.zeros_like(o).scatter_(1, face[:, None], -d.gather(1, face[:, None]).sign())
        return Crossing(*_interval(enter, leave), local @ turn.T)

    def colours(self, points: Tensor) -> Tensor:
        """Of points ``[R, 3]`` on the surface."""
        first = points.new_tensor(self.colour).expand_as(points)
        if self.second is None:
            return first
        odd = (points[:, :2] / self.square).floor().sum(dim=1).remainder(2) == 1
        return torch.where(odd[:, None], points.new_tensor(self.second), first)

    def _turn(self, like: Tensor) -> Tensor:
        """Columns are the box's axes in the world."""
        c, s = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        return like.new_tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]])


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder."""

    centre: tuple[float, float, float]
    radius: float
    half: float  # half the height
    colour: Colour

    def cross(self, origins: Tensor, directions: Tensor) -> Crossing:
        """Where each ray is within the radius and between the caps."""
        o, d = origins - origins.new_tensor(self.centre), directions
        flat, steep = d[:, :2], torch.where(d[:, 2].abs() < 1e-9, 1e-9, d[:, 2])
        side, out = _quadratic((flat**2).sum(1), (o[:, :2] * flat).sum(1), (o[:, :2] ** 2).sum(1) - self.radius**2)
        one, other = (-self.half - o[:, 2]) / steep, (self.half - o[:, 2]) / steep
        cap = torch.minimum(one, other)
        enter, leave = _interval(torch.maximum(side, cap), torch.minimum(out, torch.maximum(one, other)))
        from_side = (o[:, :2] + _finite(enter)[:, None] * flat) / self.radius
        zero = torch.zeros_like(cap)
        normal = torch.where(
            (side > cap)[:, None],
            torch.cat([from_side, zero[:, None]], dim=1),
            torch.stack([zero, zero, -steep.sign()], dim=1),
        )
        return Crossing(enter, leave, normal)

    def colours(self, points: Tensor) -> Tensor:
        """Of points ``[R, 3]`` on the surface."""
        return points.new_tensor(self.colour).expand_as(points)


Solid = Sphere | Box | Cylinder

SOLIDS: tuple[Solid, ...] = (
    Box((0.0, 0.0, -0.45), (0.88, 0.88, 0.1), (0.85, 0.80, 0.70), second=(0.25, 0.30, 0.40)),
    Sphere((-0.4, -0.35, 0.1), 0.45, (0.85, 0.25, 0.20)),
    Box((0.45, -0.3, -0.05), (0.3, 0.3, 0.3), (0.20, 0.50, 0.85), turn=30.0),
    Cylinder((0.1, 0.5, 0.2), 0.28, 0.55, (0.30, 0.70, 0.30)),
)


def hit(solids: tuple[Solid, ...], rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
    """The first surface that each ray meets between its near and its far.

    Returns:
        t ``[R]``, infinite if there is none; the outward normal ``[R, 3]`` and the surface's colour ``[R, 3]`` there
        (of no meaning if there is none).
    """
    origins, directions = rays.origins, rays.directions
    nearest = torch.full_like(origins[:, 0], math.inf)
    normal, colour = torch.zeros_like(origins), torch.zeros_like(origins)
    for solid in solids:
        crossing = solid.cross(origins, directions)
        seen = (crossing.enter < nearest) & (crossing.enter >= rays.near[:, 0]) & (crossing.enter <= rays.far[:, 0])
        points = origins + _finite(crossing.enter)[:, None] * directions
        nearest = torch.where(seen, crossing.enter, nearest)
        normal = torch.where(seen[:, None], crossing.normal, normal)
        colour = torch.where(seen[:, None], solid.colours(points), colour)
    return nearest, normal, colour


def _quadratic(a: Tensor, half_b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Between which t ``a t^2 + 2 half_b t + c`` is below zero; infinite if nowhere. ``a > 0``."""
    a = a.clamp(min=1e-12)
    root = (half_b**2 - a * c).clamp(min=0).sqrt()
    return _interval((-half_b - root) / a, (-half_b + root) / a)


def _interval(enter: Tensor, leave: Tensor) -> tuple[Tensor, Tensor]:
    """The two, or infinity where there is nothing between them."""
    there = enter < leave
    return torch.where(there, enter, math.inf), torch.where(there, leave, math.inf)


def _finite(t: Tensor) -> Tensor:
    """`t` with 0 in place of infinity, so that points stay numbers."""
    return torch.where(t.isfinite(), t, 0.0)
