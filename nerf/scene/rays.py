"""From pixels to rays, ``x(t) = origin + t direction``, in the world or in normalised device coordinates.

Letters: R rays, N cameras, H rows, W columns, f focal length in pixels. Rays of a picture come row by row from the
upper left. Sources: Mildenhall et al. 2020 (arXiv 2003.08934), section 4 and appendix C.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nerf.scene.lens import Lens
from nerf.scene.views import Scene, Views

PIXEL_CENTRE = 0.5


class Rays(NamedTuple):
    """A bundle of rays; every part has R rows."""

    origins: Tensor  # [R, 3]
    directions: Tensor  # [R, 3], not normalised: of depth 1 along the camera's axis, or as `to_ndc` makes them
    views: Tensor  # [R, 3], unit vectors in the world, also where origins and directions are normalised coordinates
    near: Tensor  # [R, 1], t of the first and of the last point
    far: Tensor  # [R, 1]


def pick(rays: Rays, index: Tensor | slice) -> Rays:
    """Those rows of every part: `index` holds row numbers or a mask, or is a slice."""
    return Rays(*(part[index] for part in rays))


def camera_rays(
    pose: Tensor, height: int, width: int, lens: Lens, near: float, far: float, *, offset: float = PIXEL_CENTRE
) -> Rays:
    """One ray for each pixel of one camera, or of several.

    By a pinhole in the middle of the picture the pixel in row i and column j looks along
    ``((j + offset - W/2) / f, -(i + offset - H/2) / f, -1)`` in the camera's axes; by others see `nerf.scene.lens`.

    Args:
        pose: ``[3, 4]`` or ``[N, 3, 4]``.
        height: H.
        width: W.
        lens: One for all, or N.
        near: t of the nearest point.
        far: t of the farthest.
        offset: Where in its pixel a ray starts. 0.5 is the middle, which is right for pictures that were averaged down;
            the code releases of 2020 use 0, the upper left corner.

    Returns:
        ``R = H W`` or ``N H W`` rays on the pose's device.
    """
    poses = pose.reshape(-1, 3, 4)
    ones = poses.new_ones(height, width)
    pixels = torch.stack([ones.cumsum(1) - 1 + offset, ones.cumsum(0) - 1 + offset], dim=-1).reshape(-1, 2)
    in_camera = torch.cat([lens.of(index).directions(pixels) for index in range(len(lens))])
    if len(lens) == 1:
        directions = torch.einsum("nij,pj->npi", poses[:, :, :3], in_camera[0]).reshape(-1, 3)
    else:
        directions = torch.einsum("nij,npj->npi", poses[:, :, :3], in_camera).reshape(-1, 3)
    origins = poses[:, None, :, 3].expand(-1, height * width, 3).reshape(-1, 3)
    return Rays(
        origins,
        directions,
        directions / directions.norm(dim=1, keepdim=True),
        pose.new_tensor(near).expand(len(directions), 1),
        pose.new_tensor(far).expand(len(directions), 1),
    )


def to_ndc(rays: Rays, height: int, width: int, focal: float) -> Rays:
    """Rays of a camera that looks along -z, in normalised device coordinates, where infinity is at t = 1.

    Each ray is first moved to where it meets the plane z = -1; with ``o`` there and ``d`` its direction, it becomes

        o' = (-2f/W ox/oz,  -2f/H oy/oz,  1 + 2/oz)
        d' = (-2f/W (dx/dz - ox/oz),  -2f/H (dy/dz - oy/oz),  -2/oz)

    so that what lies in front of that plane, however far, is between z' = -1 (t = 0) and z' = 1 (t = 1).

    Args:
        rays: Rays with negative dz.
        height: H of the pictures.
        width: W.
        focal: f.

    Returns:
        The same rays with near 0 and far 1; `views` stays what it was.
    """
    ox, oy, oz = rays.origins.unbind(1)
    dx, dy, dz = rays.directions.unbind(1)
    t = -(1 + oz) / dz
    ox, oy, oz = ox + t * dx, oy + t * dy, oz + t * dz
    sx, sy = -2 * focal / width, -2 * focal / height
    origins = torch.stack([sx * ox / oz, sy * oy / oz, 1 + 2 / oz], dim=1)
    directions = torch.stack([sx * (dx / dz - ox / oz), sy * (dy / dz - oy / oz), -2 / oz], dim=1)
    near, far = (oz.new_tensor(t).expand_as(rays.near) for t in (0.0, 1.0))
    return Rays(origins, directions, rays.views, near, far)


def scene_rays(
    scene: Scene, poses: Tensor, height: int, width: int, lens: Lens, *, offset: float = PIXEL_CENTRE
) -> Rays:
    """The rays of cameras ``[3, 4]`` or ``[N, 3, 4]`` as the scene's network sees them; see `camera_rays`."""
    rays = camera_rays(poses, height, width, lens, scene.near, scene.far, offset=offset)
    return to_scene(scene, rays)


def to_scene(scene: Scene, rays: Rays) -> Rays:
    """Rays in the world as the scene's network sees them.

    Normalised device coordinates are those of the first training camera, whatever the lens of a ray.
    """
    views = scene.train
    return to_ndc(rays, views.height, views.width, float(views.focal[0, 0])) if scene.ndc else rays


def view_rays(scene: Scene, views: Views, index: int, *, offset: float = PIXEL_CENTRE) -> Rays:
    """The ``H W`` rays of the view number `index`, in the order of ``views.images[index].reshape(-1, 3)``."""
    return scene_rays(scene, views.poses[index], views.height, views.width, views.lens.of(index), offset=offset)


def training_rays(scene: Scene, *, offset: float = PIXEL_CENTRE) -> tuple[Rays, Tensor]:
    """Every pixel of every training view, on the scene's device: ``N H W`` rays, and their colours ``[N H W, 3]``.

    They take 48 bytes a pixel: 29 MB for 60 views of 100 x 100, 3.1 GB for 100 views of 800 x 800.
    """
    views = scene.train
    rays = scene_rays(scene, views.poses, views.height, views.width, views.lens, offset=offset)
    return rays, views.images.reshape(-1, 3)
