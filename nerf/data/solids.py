"""A scene that needs no download: a few solids, ray-traced exactly, stored in the Blender layout.

On a chequered slab stand a sphere, a turned box and a cylinder. A ray's first hit comes from closed forms: a quadric
for the sphere and the cylinder's side, planes for the rest. Its colour is that of the surface times (ambient + Lambert)
plus a highlight that moves with the viewer (Blinn 1977). No shadows. Everything here is fixed: the same parameters
give the same files.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data import cache_dir
from harness.data.cache import make_once
from harness.errors import UserError
from harness.files import filling
from nerf.data.shapes import SOLIDS, hit
from nerf.scene.lens import pinhole
from nerf.scene.poses import pose_from_spherical
from nerf.scene.rays import Rays, camera_rays, pick

NAME = "solids"
SIZE = 100  # pixels a side
TRAIN_VIEWS, TEST_VIEWS = 60, 12
RADIUS = 4.0
FIELD_OF_VIEW = 0.6911112  # radians, that of the NeRF synthetic scenes
SUPERSAMPLING = 3  # rays a side of each pixel
LIGHT = (0.4, -0.5, 0.77)  # direction to it
AMBIENT, DIFFUSE, HIGHLIGHT, SHININESS = 0.35, 0.65, 0.25, 24
GOLDEN_ANGLE = 180 * (3 - math.sqrt(5))  # degrees
TEST_TURN = 85.0  # degrees; no test view is then closer than 0.33 to a training view
CHUNK = 1 << 16  # rays traced at once


def trace(rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
    """Trace rays to the first surface.

    Args:
        rays: R rays in the world; hits before `near` or behind `far` do not count.

    Returns:
        Colours ``[R, 3]`` in 0..1, white where nothing is hit; alpha ``[R]``, 1 or 0; distances ``[R]`` as t along
        `rays.directions`, infinite where nothing is hit.
    """
    distance, normal, surface = hit(SOLIDS, rays)
    alpha = distance.isfinite()
    light = _unit(normal.new_tensor(LIGHT))
    half = _unit(light - rays.views)
    lambert = (normal @ light).clamp(min=0)
    highlight = (normal * half).sum(dim=1).clamp(min=0) ** SHININESS * (lambert > 0)
    colour = surface * (AMBIENT + DIFFUSE * lambert)[:, None] + HIGHLIGHT * highlight[:, None]
    return torch.where(alpha[:, None], colour.clamp(0, 1), 1.0), alpha.to(colour), distance


def picture(pose: Tensor, size: int) -> Tensor:
    """One view ``[size, size, 4]`` of RGBA in 0..1, colours not multiplied by alpha, averaged over each pixel."""
    fine = size * SUPERSAMPLING
    rays = camera_rays(pose, fine, fine, pinhole(fine, fine, _focal(fine)), 0.0, math.inf)
    colour, alpha = torch.empty(fine * fine, 3), torch.empty(fine * fine, 1)
    for start in range(0, fine * fine, CHUNK):
        part = slice(start, start + CHUNK)
        colour[part], alpha[part, 0], _ = trace(pick(rays, part))
    premultiplied = torch.cat([colour * alpha, alpha], dim=1)
    mean = premultiplied.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 4).mean(dim=(1, 3))
    return torch.cat([mean[..., :3] / mean[..., 3:].clamp(min=1e-6), mean[..., 3:]], dim=2)


def hemisphere(count: int, turn: float = 0.0) -> Tensor:
    """Poses ``[count, 3, 4]`` spread evenly over the upper hemisphere: a golden-angle spiral from above to the side.

    Args:
        count: Poses.
        turn: Degrees by which the whole is turned about z.
    """
    k = torch.arange(count, dtype=torch.float64)
    height = 0.98 - 0.96 * (k + 0.5) / count  # not from straight above, where up is undefined, nor from below the slab
    elevation = torch.rad2deg(height.asin())
    return pose_from_spherical((k * GOLDEN_ANGLE + turn) % 360, elevation, RADIUS).float()


def write_scene(folder: Path, size: int = SIZE, views: int = TRAIN_VIEWS, test_views: int = TEST_VIEWS) -> None:
    """Write the scene to `folder`, which is there whole or not at all.

    Raises:
        UserError: `folder` is not empty, or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--out {folder} is not empty. Give a folder that does not exist yet.")
    with filling(folder) as unfinished:
        _fill(unfinished, size, views, test_views)


def cached_scene(size: int = SIZE) -> Path:
    """The folder of the scene in the cache, written by the first call for each size.

    Raises:
        UserError: the cache cannot be written.
    """
    recipe = Path(__file__).read_bytes() + Path(__file__).with_name("shapes.py").read_bytes()
    key = hashlib.sha256(recipe + str(size).encode()).hexdigest()[:16]
    return make_once(cache_dir() / "procedural" / key / NAME, partial(_fill, size=size))


def _fill(folder: Path, size: int, views: int = TRAIN_VIEWS, test_views: int = TEST_VIEWS) -> None:
    """Write the scene into an empty folder."""
    _write_split(folder, "train", hemisphere(views), size)
    _write_split(folder, "test", hemisphere(test_views, turn=TEST_TURN), size)


def _write_split(folder: Path, split: str, poses: Tensor, size: int) -> None:
    """The pictures of one split and its JSON."""
    from PIL import Image

    (folder / split).mkdir()
    frames = []
    for index, pose in enumerate(poses):
        pixels = (picture(pose, size) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / split / f"r_{index}.png")
        matrix = [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]
        frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": matrix})
    content = {"camera_angle_x": FIELD_OF_VIEW, "frames": frames}
    (folder / f"transforms_{split}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _focal(size: int) -> float:
    """Of a square picture, in pixels."""
    return 0.5 * size / math.tan(0.5 * FIELD_OF_VIEW)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)
