"""Camera poses: looking at a point, turntables around a scene, spirals in front of it.

Poses are camera-to-world, ``[..., 3, 4]``, float32, OpenGL's axes (`nerf.scene.views`). Angles are in degrees.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

UP = (0.0, 0.0, 1.0)  # of the world, in Blender


def oriented(back: Tensor, up: Tensor, position: Tensor) -> Tensor:
    """Poses ``[..., 3, 4]`` at `position` that look against `back`, with `up` upwards in the picture.

    Args:
        back: ``[..., 3]``, any length.
        up: ``[3]`` or ``[..., 3]``, any length, not parallel to `back`.
        position: ``[..., 3]``.
    """
    back = _unit(back)
    right = _unit(torch.linalg.cross(up.expand_as(back), back))
    return torch.stack([right, torch.linalg.cross(back, right), back, position], dim=-1)


def pose_from_spherical(azimuth: Tensor, elevation: Tensor, radius: float) -> Tensor:
    """Poses ``[..., 3, 4]`` on a sphere around the origin that look at it, z being up.

    Args:
        azimuth: ``[...]``, degrees from the x axis towards the y axis.
        elevation: ``[...]``, degrees above the x-y plane, between -90 and 90 (exclusive).
        radius: Distance from the origin.
    """
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    outward = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)
    return oriented(outward, outward.new_tensor(UP), radius * outward)


def turntable(count: int, elevation: float, radius: float) -> Tensor:
    """Poses ``[count, 3, 4]`` at equal distances on a circle around the z axis, starting at the x axis."""
    azimuth = torch.arange(count) * (360.0 / count)
    return pose_from_spherical(azimuth, torch.full((count,), elevation), radius)


def average_pose(poses: Tensor) -> Tensor:
    """The pose ``[3, 4]`` in the middle of `poses` ``[N, 3, 4]``: mean position, mean view, mean up."""
    return oriented(poses[:, :, 2].sum(dim=0), poses[:, :, 1].sum(dim=0), poses[:, :, 3].mean(dim=0))


def recentred(poses: Tensor) -> Tensor:
    """`poses` ``[N, 3, 4]`` in the axes of their `average_pose`: on average at the origin, looking along -z."""
    middle = average_pose(poses)
    turn = middle[:, :3].T
    rotations = turn @ poses[:, :, :3]
    positions = (poses[:, :, 3] - middle[:, 3]) @ turn.T
    return torch.cat([rotations, positions[:, :, None]], dim=2)


def spiral(poses: Tensor, focus: float, count: int = 120, turns: int = 2) -> Tensor:
    """Poses ``[count, 3, 4]`` for a video: around the average of `poses`, all looking at one point in front of it.

    In the axes of the average pose, camera k is at ``(rx cos a, -ry sin a, -rz sin(a / 2))`` with
    ``a = 2 pi turns k / count``; the radii are the 90th percentile of ``|position|`` per axis. Both are those of the
    LLFF code release (Mildenhall et al. 2019).

    Args:
        poses: ``[N, 3, 4]``, recentred.
        focus: Distance of the point that all look at.
        count: Poses.
        turns: Number of turns; even, so that the path is closed.
    """
    middle = average_pose(poses)
    radii = poses[:, :, 3].abs().quantile(0.9, dim=0)
    a = torch.arange(count, dtype=poses.dtype, device=poses.device) * (2 * math.pi * turns / count)
    inside = torch.stack([a.cos(), -a.sin(), -(a / 2).sin()], dim=1) * radii
    positions = inside @ middle[:, :3].T + middle[:, 3]
    target = middle[:, 3] - focus * middle[:, 2]
    return oriented(positions - target, middle[:, 1], positions)


def _unit(vectors: Tensor) -> Tensor:
    """`vectors` of length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True)
