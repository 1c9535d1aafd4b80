"""The format of the forward-facing photographs of LLFF (Mildenhall et al. 2019), as NeRF uses them.

    <folder>/poses_bounds.npy    float64 [N, 17]
             images/, images_4/, ...      the N photographs in the order of their names, whole or made smaller

A row holds a 3 x 5 matrix, then the depths between which the photograph's content lies. The matrix's columns are the
camera's down, right and back, its position, and height, width and focal length in pixels of the original photograph.
As in NeRF (Mildenhall et al. 2020, appendix C) the scene is scaled until the nearest content is at depth 1 / 0.75,
turned so that the average camera looks along -z, and seen in normalised device coordinates; every 8th view is a test.
Where cameras look at a point from many sides the scene is set up as NeRF's code does with `spherify`: that point is the
origin, cameras are 1 away from it, and rays run from 0.9 times the least depth to the greatest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from nerf.data.images import Background, has_white_background, image_size, read_images
from nerf.data.intrinsics import LARGEST
from nerf.data.pixels import SUFFIXES
from nerf.data.rotations import rigid_pose
from nerf.data.transforms import note
from nerf.scene.lens import Lens, border, joined, pinhole
from nerf.scene.placing import PATH_POSES, focus_point, ray_bounds, rescaled
from nerf.scene.poses import oriented, recentred, spiral, turntable
from nerf.scene.views import Scene, Views

NAMES = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")
NEAREST = 1 / 0.75
HOLD_OUT = 8
FOLDERS = ("images_4", "images_8", "images")  # in this order without a size: NeRF's results are for a quarter
FORWARD = 0.05  # of a cosine: what every ray has at least, with the way that the average camera looks
NEARER = 0.9  # of the least depth, where rays begin around an object
SMALLEST = 1e-6  # of a size or a depth


def read_llff(folder: Path, size: int | None = None, *, background: Background | None = None) -> Scene:
    """Read a scene; its name is the folder's.

    Args:
        folder: Where `poses_bounds.npy` is.
        size: Width of the pictures; None: as stored in images_4, else images_8, images, or another. With a size the
            smallest stored pictures that are not smaller are averaged down.
        background: What is behind the scene; None: white if the pictures have an alpha channel, else black.

    Raises:
        UserError: a file is missing or malformed (it is named), or `size` does not fit.
    """
    path = folder / "poses_bounds.npy"
    matrices, depths = _read_poses(path)
    files = _choose(folder, size)
    if len(files) != len(matrices):
        raise UserError(
            f"{files[0].parent} holds {len(files)} pictures where poses_bounds.npy has {len(matrices)} rows. "
            f"Unpack the scene again."
        )
    white = has_white_background(files, background)
    images = read_images(files, size, float(white))[0]
    lens = _lens(files[0], images, matrices[:, :, 4])
    poses = torch.stack([matrices[:, :, 1], -matrices[:, :, 0], matrices[:, :, 2], matrices[:, :, 3]], dim=2)
    poses = torch.stack([_rigid(pose, f"{path}: the matrix of row {row}") for row, pose in enumerate(poses)])
    ahead = _forward_facing(poses, depths, lens, images.shape[1:3])
    placed = _spherical(path, poses, depths) if ahead is None else ahead
    if not bool((placed.poses.abs() < LARGEST).all()):
        raise UserError(f"{path}: positions and depths are of sizes that do not go together. Replace the file.")
    is_test = torch.arange(len(files)) % HOLD_OUT == 0
    views = Views(images, placed.poses.float(), lens, tuple(file.stem for file in files))
    train, test = views.rows(~is_test), views.rows(is_test)
    scene = Scene(
        name=folder.name,
        train=train,
        test=test,
        near=placed.near,
        far=placed.far,
        white_background=white,
        ndc=ahead is not None,
        path=placed.path.float(),
        bounds=torch.zeros(2, 3),
    )
    on_path = replace(train, poses=scene.path, lens=train.lens.of(0))
    return replace(scene, bounds=ray_bounds(scene, (train, test, on_path)))


class Placed(NamedTuple):
    """Cameras in the coordinates of the scene, and where their rays begin and end."""

    poses: Tensor  # [N, 3, 4]
    near: float
    far: float
    path: Tensor  # [M, 3, 4]


def _forward_facing(poses: Tensor, depths: Tensor, lens: Lens, shape: Sequence[int]) -> Placed | None:
    """The cameras of a scene that is seen in normalised device coordinates; None if they do not all look forward.

    These coordinates cannot represent what is beside or behind the average camera.
    """
    if float(poses[:, :, 2].mean(dim=0).norm()) < FORWARD or float(poses[:, :, 1].mean(dim=0).norm()) < FORWARD:
        return None
    scale = NEAREST / depths.min()
    poses = recentred(torch.cat([poses[:, :, :3], scale * poses[:, :, 3:]], dim=2))
    inside = lens.directions(border(shape[0], shape[1], 2)).expand(len(poses), -1, -1)
    seen = torch.einsum("nij,npj->npi", poses[:, :, :3], inside)
    if not bool((-seen[:, :, 2] > FORWARD * seen.norm(dim=2)).all()):
        return None
    path = spiral(poses, _focus(scale * depths.min(), scale * depths.max()))
    return Placed(poses, 0.0, 1.0, path)


def _spherical(path: Path, poses: Tensor, depths: Tensor) -> Placed:
    """The cameras of a scene that is seen from all sides, on a sphere of radius 1 around what they look at."""
    point = focus_point(poses)
    if point is None:
        raise UserError(
            f"{path}: the cameras look neither all one way nor at one point, and scenes of other kinds are not read "
            "from this format. Take photographs that do, or write transforms.json and use --dataset blender."
        )
    scale = 1 / (poses[:, :, 3] - point).square().sum(dim=1).mean().sqrt()
    up = poses[:, :, 1].mean(dim=0)
    if float(up.norm()) < FORWARD:
        up = poses[0, :, 1]
    upright = oriented(up, poses[0, :, 0], point)[:, :3].T  # rows: two axes across, then up
    turned = upright @ rescaled(poses, point, float(scale))
    height = float(turned[:, 2, 3].mean().clamp(-0.9, 0.9))
    note(f"{path}: the cameras look at one point from many sides, so the scene is set up around it, not before them")
    return Placed(
        turned,
        NEARER * float(depths.min() * scale),
        float(depths.max() * scale),
        turntable(PATH_POSES, math.degrees(math.asin(height)), 1.0),
    )


def _rigid(pose: Tensor, where: str) -> Tensor:
    return torch.tensor(rigid_pose(pose.tolist(), where), dtype=torch.float64)


def _read_poses(path: Path) -> tuple[Tensor, Tensor]:
    """Matrices ``[N, 3, 5]`` and depths ``[N, 2]`` as stored."""
    try:
        rows = np.load(
            path, allow_pickle=False, mmap_mode="r"
        )  # memory-mapped, so that a wrong header cannot allocate more than the file holds
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}. {_way_out(path)}") from None
    except Exception as error:  # numpy raises many types of errors for damaged headers
        raise UserError(
            f"{path} is not an array of numpy ({' '.join(str(error).split())[:100]}). Replace it."
        ) from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind not in "fiu":
        found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else "an archive"
        raise UserError(f"{path} holds {found}, not float64 [N, 17]. Replace it.")
    if len(rows) < 2:
        raise UserError(f"{path} has {len(rows)} rows. A scene needs a test view and a training view at least.")
    whole = torch.from_numpy(np.array(rows, dtype=np.float64))
    matrices, depths = whole[:, :15].reshape(-1, 3, 5), whole[:, 15:]
    sound = (whole.abs() < LARGEST).all(dim=1) & (matrices[:, :, 4] > SMALLEST).all(dim=1)
    sound &= (depths[:, 0] > SMALLEST) & (depths[:, 1] > depths[:, 0])
    if not bool(sound.all()):
        row = int((~sound).nonzero()[0])
        raise UserError(f"{path}: row {row} has an impossible size, focal length or depth. Replace the file.")
    return matrices, depths


def _way_out(path: Path) -> str:
    """What to do where there are no poses."""
    if any(path.parent.glob("transforms*.json")):
        return "The folder holds cameras in JSON: read it with --dataset blender."
    return "A scene of LLFF needs it."


def _choose(folder: Path, size: int | None) -> list[Path]:
    """The pictures to read, sorted by name."""
    stored = {name: _pictures(folder / name) for name in (*FOLDERS, *_other_folders(folder))}
    stored = {name: files for name, files in stored.items() if files}
    if not stored:
        found = sorted(path.name for path in folder.iterdir())[:10] or ["nothing"]
        raise UserError(
            f"{folder} has no pictures in {', '.join(FOLDERS)} or another images_N, but {', '.join(found)}. Put them "
            f"there as {', '.join(SUFFIXES)}."
        )
    if size is None:
        return next(iter(stored.values()))
    widths = {name: image_size(files[0])[1] for name, files in stored.items()}
    large = [name for name in stored if widths[name] >= size] or [max(widths, key=lambda name: widths[name])]
    return stored[min(large, key=lambda name: widths[name])]


def _other_folders(folder: Path) -> list[str]:
    """Folders of pictures made smaller by other numbers, by that number: images_2, images_16."""
    names = [path.name.removeprefix("images_") for path in folder.glob("images_*")]
    numbers = sorted(int(name) for name in names if name.isdecimal() and name.isascii() and len(name) < 5)
    return [name for name in (f"images_{number}" for number in numbers) if name not in FOLDERS]


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def _lens(file: Path, images: Tensor, originals: Tensor) -> Lens:
    """The lenses before `images`, from height, width and focal length of each original photograph, ``[N, 3]``."""
    stored_height, stored_width = image_size(file)
    lenses = []
    for height, width, focal in originals.tolist():
        if abs(stored_height - height * stored_width / width) > 1:
            raise UserError(
                f"{file} is {stored_width}x{stored_height}, which is not the shape of the {width:.0f}x{height:.0f} "
                f"photographs in poses_bounds.npy. Replace the pictures."
            )
        lenses.append(pinhole(images.shape[1], images.shape[2], focal * images.shape[2] / width))
    return joined(lenses)


def _focus(nearest: Tensor, farthest: Tensor) -> float:
    """The depth that a video keeps in its middle: harmonic, between 0.9 of the nearest and 5 times the farthest."""
    return float(1 / (0.25 / (0.9 * nearest) + 0.75 / (5 * farthest)))
