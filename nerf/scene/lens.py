"""How a camera maps directions to pixels: focal lengths, principal point, and OpenCV's lens distortion.

A direction (x, y, 1) before the camera, x to the right and y down, is seen at the pixel

    u = fx x' + cx,  v = fy y' + cy,  where with r2 = x x + y y
    x' = x (1 + k1 r2 + k2 r2^2 + k3 r2^3) + 2 p1 x y + p2 (r2 + 2 x x)
    y' = y (1 + k1 r2 + k2 r2^2 + k3 r2^3) + p1 (r2 + 2 y y) + 2 p2 x y

Pixel coordinates are measured from the upper left corner of the picture, so the first pixel's centre is at 0.5. Source:
OpenCV, camera calibration and 3D reconstruction. Letters: L lenses, P pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NEWTON_STEPS = 30
RESIDUAL = 1e-6  # in focal lengths: how exactly the direction of a pixel must map back to it


@dataclass(frozen=True)
class Lens:
    """The lenses of N cameras: L is N, or 1 where all are alike. It stays on the CPU, in float64."""

    focal: Tensor  # [L, 2], pixels, across and down
    centre: Tensor  # [L, 2], pixels, where the camera's axis meets the picture
    distortion: Tensor  # [L, 5], k1, k2, p1, p2, k3

    def __len__(self) -> int:
        return len(self.focal)

    def of(self, index: int) -> Lens:
        """The lens of the camera number `index`."""
        return self.rows(torch.tensor([index]))

    def rows(self, index: Tensor) -> Lens:
        """The lenses of some of the cameras, by their numbers or a mask ``[N]``."""
        if len(self) == 1:
            return self
        return Lens(self.focal[index], self.centre[index], self.distortion[index])

    def resized(self, across: float, down: float) -> Lens:
        """The same lenses before pictures that have `across` times the columns and `down` times the rows."""
        times = torch.tensor([across, down], dtype=torch.float64)
        return replace(self, focal=self.focal * times, centre=self.centre * times)

    def directions(self, pixels: Tensor) -> Tensor:
        """Where pixels look, ``[L, P, 3]``, of depth 1 along -z in OpenGL's axes.

        Args:
            pixels: ``[P, 2]``, column and row coordinates.
        """
        x, y = ((pixels[:, axis] - self.centre[:, axis, None].to(pixels)) for axis in (0, 1))
        x, y = x / self.focal[:, :1].to(pixels), y / self.focal[:, 1:].to(pixels)
        if bool(self.distortion.any()):
            x, y = (part.to(pixels) for part in undistorted(x.double().cpu(), y.double().cpu(), self.distortion))
        return torch.stack([x, -y, -torch.ones_like(x)], dim=-1)

    def is_invertible(self, height: int, width: int) -> Tensor:
        """Of each lens whether every pixel on a picture's edge has one direction, ``[L]``.

        Far from the centre strong distortion may fold over, so that a pixel has two directions, or none.
        """
        if not bool(self.distortion.any()):
            return torch.ones(len(self), dtype=torch.bool)
        edge = border(height, width, 33)
        seen = (edge - self.centre[:, None]) / self.focal[:, None]
        x, y = undistorted(seen[..., 0], seen[..., 1], self.distortion)
        again = torch.stack(distorted(x, y, self.distortion), dim=-1)
        met = ((again - seen).abs() < RESIDUAL).all(dim=-1).all(dim=-1)
        square = (x.square() + y.square()).amax(dim=1, keepdim=True) * torch.linspace(0, 1, 1000, dtype=torch.float64)
        k1, k2, _, _, k3 = (self.distortion[:, [number]] for number in range(5))
        rising = (1 + square * (3 * k1 + square * (5 * k2 + square * 7 * k3)) > 0).all(dim=1)
        return met & rising


def pinhole(height: int, width: int, focal: float) -> Lens:
    """A lens of square pixels with its axis through the picture's middle."""
    return Lens(
        torch.tensor([[focal, focal]], dtype=torch.float64),
        torch.tensor([[width / 2, height / 2]], dtype=torch.float64),
        torch.zeros(1, 5, dtype=torch.float64),
    )


def joined(lenses: list[Lens]) -> Lens:
    """One after another; a single one where all are alike."""
    parts = [torch.cat([getattr(lens, name) for lens in lenses]) for name in ("focal", "centre", "distortion")]
    alike = all(bool((part == part[:1]).all()) for part in parts)
    return Lens(*(part[:1] if alike else part for part in parts))


def border(height: int, width: int, count: int) -> Tensor:
    """Places around the edge of a picture, `count` a side, corners among them: ``[4 count, 2]``, float64."""
    along = torch.linspace(0, 1, count, dtype=torch.float64)
    low, high = torch.zeros_like(along), torch.ones_like(along)
    sides = [(along, low), (along, high), (low, along), (high, along)]
    return torch.cat([torch.stack([x * width, y * height], dim=1) for x, y in sides])


def distorted(x: Tensor, y: Tensor, distortion: Tensor) -> tuple[Tensor, Tensor]:
    """x' and y' of the module's formula; all are ``[L, P]``, the coefficients ``[L, 5]``."""
    k1, k2, p1, p2, k3 = (distortion[:, [number]] for number in range(5))
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


def undistorted(seen_x: Tensor, seen_y: Tensor, distortion: Tensor) -> tuple[Tensor, Tensor]:
    """x and y whose `distorted` are those given, ``[L, P]``, by Newton's method."""
    k1, k2, p1, p2, k3 = (distortion[:, [number]] for number in range(5))
    x, y = seen_x.clone(), seen_y.clone()
    for _ in range(NEWTON_STEPS):
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        slope = 2 * (k1 + r2 * (2 * k2 + r2 * 3 * k3))  # of the radial factor, over x or y
        xx = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x
        xy = x * y * slope + 2 * p1 * x + 2 * p2 * y
        yy = radial + y * y * slope + 6 * p1 * y + 2 * p2 * x
        now_x, now_y = distorted(x, y, distortion)
        off_x, off_y = now_x - seen_x, now_y - seen_y
        volume = xx * yy - xy * xy
        x = x - (yy * off_x - xy * off_y) / volume
        y = y - (xx * off_y - xy * off_x) / volume
        if max(float(off_x.abs().max()), float(off_y.abs().max())) < 1e-14:
            break
    return x, y
