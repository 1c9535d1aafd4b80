"""The point that cameras look at, by which a scene is centred and scaled, and the box around all rays.

The point that cameras look at is nearest, in the sense of least squares, to all their axes, as in NeRF's code for
captures from all sides (`spherify_poses` of its LLFF loader). A scene whose cameras look one way, or outwards, has
none.

Letters: N cameras, P points of the edge of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nerf.scene.lens import border
from nerf.scene.rays import Rays, to_scene
from nerf.scene.views import Scene, Views

PARALLEL = 0.01  # mean squared sine of angles between axes, from which on there is a point where they meet
AHEAD = 0.9  # share of the cameras that must have that point in front of them
PATH_POSES = 120
EDGE = 9  # places a side at which the extent of a picture is measured


def focus_point(poses: Tensor) -> Tensor | None:
    """The point ``[3]`` that cameras ``[N, 3, 4]`` look at, or None if there is none."""
    views, positions = -poses[:, :, 2], poses[:, :, 3]
    across = torch.eye(3).to(poses) - views[:, :, None] * views[:, None]  # projects onto the plane across an axis
    mean = across.mean(dim=0)
    if not bool(mean.isfinite().all()) or float(torch.linalg.eigvalsh(mean)[0]) < PARALLEL:
        return None
    point = torch.linalg.solve(mean, (across @ positions[:, :, None]).mean(dim=0)[:, 0])
    ahead = ((point - positions) * views).sum(dim=1) > 1e-9 * positions.abs().max()  # cameras at one place have none
    return point if float(ahead.double().mean()) >= AHEAD else None


def rescaled(poses: Tensor, point: Tensor, scale: float) -> Tensor:
    """`poses` in axes that have their origin at `point` and in which lengths are `scale` times as long."""
    return torch.cat([poses[:, :, :3], scale * (poses[:, :, 3] - point)[:, :, None]], dim=2)


def as_path(poses: Tensor) -> Tensor:
    """Poses for a video where no better path is known: the cameras themselves, one after another, ``[120, 3, 4]``."""
    return poses[torch.arange(PATH_POSES) * len(poses) // PATH_POSES]


def edge_directions(views: Views) -> Tensor:
    """Where the edges of pictures look, in the cameras' own axes: ``[N, P, 3]`` or ``[1, P, 3]``."""
    return views.lens.directions(border(views.height, views.width, EDGE)).float()


def ray_bounds(scene: Scene, more: Sequence[Views]) -> Tensor:
    """The box ``[2, 3]`` that holds all rays of cameras from their near to their far end, as the network sees them.

    The rays of a camera fill a convex frustum, also in normalised device coordinates, so the ends of rays through the
    edge of its picture are enough.
    """
    parts = []
    for views in more:
        inside = edge_directions(views).expand(len(views.poses), -1, -1)
        directions = torch.einsum("nij,npj->npi", views.poses[:, :, :3], inside)
        origins = views.poses[:, None, :, 3].expand_as(directions).reshape(-1, 3)
        directions = directions.reshape(-1, 3)
        near, far = (origins.new_full((len(origins), 1), end) for end in (scene.near, scene.far))
        rays = to_scene(scene, Rays(origins, directions, directions, near, far))
        parts += [rays.origins + end * rays.directions for end in (rays.near, rays.far)]
    ends = torch.cat(parts)
    margin = 1e-3 * (ends.amax(dim=0) - ends.amin(dim=0))
    return torch.stack([ends.amin(dim=0) - margin, ends.amax(dim=0) + margin])
