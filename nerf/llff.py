"""The format of the forward-facing photographs of LLFF (Mildenhall et al. 2019), as NeRF uses them.

    <folder>/poses_bounds.npy    float64 [N, 17]
             images/, images_4/, images_8/    the N photographs in the order of their names, whole or made smaller

A row holds a 3 x 5 matrix, then the depths between which the photograph's content lies. The matrix's columns are the
camera's down, right and back, its position, and height, width and focal length in pixels of the original photograph.
As in NeRF (Mildenhall et al. 2020, appendix C) the scene is scaled until the nearest content is at depth 1 / 0.75,
turned so that the average camera looks along -z, and seen in normalised device coordinates; every 8th view is a test.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from nerf.cameras import recentred, spiral
from nerf.images import image_size, read_images
from nerf.rays import Rays, to_ndc
from nerf.scene import Scene, Views

NAMES = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")
NEAREST = 1 / 0.75
HOLD_OUT = 8
FOLDERS = ("images_4", "images_8", "images")  # in this order without a size: NeRF's results are for a quarter
SUFFIXES = (".png", ".jpg", ".jpeg")


def read_llff(folder: Path, size: int | None = None) -> Scene:
    """Read a scene; its name is the folder's.

    Args:
        folder: Where `poses_bounds.npy` is.
        size: Width of the pictures; None: as stored in images_4, else images_8, else images. With a size the smallest
            stored pictures that are not smaller are averaged down.

    Raises:
        UserError: a file is missing or malformed (it is named), or `size` does not fit.
    """
    matrices, depths = _read_poses(folder / "poses_bounds.npy")
    files = _choose(folder, size)
    if len(files) != len(matrices):
        raise UserError(
            f"{files[0].parent} holds {len(files)} pictures where poses_bounds.npy has {len(matrices)} rows. "
            f"Unpack the scene again."
        )
    images, _ = read_images(files, size)
    focal = _focal(files[0], images, matrices[0, :, 4])
    scale = NEAREST / depths.min()
    poses = torch.stack([matrices[:, :, 1], -matrices[:, :, 0], matrices[:, :, 2], scale * matrices[:, :, 3]], dim=2)
    poses = recentred(poses)
    path = spiral(poses, _focus(scale * depths.min(), scale * depths.max()))
    is_test = torch.arange(len(files)) % HOLD_OUT == 0
    train, test = (_views(images, poses, focal, files, rows) for rows in (~is_test, is_test))
    scene = Scene(
        name=folder.name,
        train=train,
        test=test,
        near=0.0,
        far=1.0,
        white_background=False,
        ndc=True,
        path=path.float(),
        bounds=torch.zeros(2, 3),
    )
    return _bounded(scene)


def _read_poses(path: Path) -> tuple[Tensor, Tensor]:
    """Matrices ``[N, 3, 5]`` and depths ``[N, 2]`` as stored."""
    try:
        rows = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}. A scene of LLFF needs it.") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is not an array of numpy ({error}). Replace it.") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind != "f":
        found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else "an archive"
        raise UserError(f"{path} holds {found}, not float64 [N, 17]. Replace it.")
    if len(rows) < 2:
        raise UserError(f"{path} has {len(rows)} rows. A scene needs a test view and a training view at least.")
    whole = torch.from_numpy(rows.astype(np.float64))
    matrices, depths = whole[:, :15].reshape(-1, 3, 5), whole[:, 15:]
    sound = whole.isfinite().all(dim=1) & (matrices[:, :, 4] > 0).all(dim=1)
    sound &= (depths[:, 0] > 0) & (depths[:, 1] > depths[:, 0])
    if not bool(sound.all()):
        row = int((~sound).nonzero()[0])
        raise UserError(f"{path}: row {row} has a size, focal length or depth that is no such thing. Replace the file.")
    return matrices, depths


def _choose(folder: Path, size: int | None) -> list[Path]:
    """The pictures to read, sorted by name."""
    stored = {name: _pictures(folder / name) for name in FOLDERS}
    stored = {name: files for name, files in stored.items() if files}
    if not stored:
        raise UserError(f"{folder} has no pictures in {', '.join(FOLDERS)}. Unpack the scene again.")
    if size is None:
        return next(iter(stored.values()))
    widths = {name: image_size(files[0])[1] for name, files in stored.items()}
    large = [name for name in stored if widths[name] >= size] or [max(widths, key=lambda name: widths[name])]
    return stored[min(large, key=lambda name: widths[name])]


def _pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def _focal(file: Path, images: Tensor, original: Tensor) -> float:
    """Focal length in pixels of `images`, from height, width and focal length of the original photographs."""
    height, width, focal = original.tolist()
    stored_height, stored_width = image_size(file)
    if abs(stored_height - height * stored_width / width) > 1:
        raise UserError(
            f"{file} is {stored_width}x{stored_height}, which is not the shape of the {width:.0f}x{height:.0f} "
            f"photographs in poses_bounds.npy. Replace the pictures."
        )
    return focal * images.shape[2] / width


def _focus(nearest: Tensor, farthest: Tensor) -> float:
    """The depth that a video keeps in its middle: harmonic, between 0.9 of the nearest and 5 times the farthest."""
    return float(1 / (0.25 / (0.9 * nearest) + 0.75 / (5 * farthest)))


def _views(images: Tensor, poses: Tensor, focal: float, files: list[Path], rows: Tensor) -> Views:
    """Those views of all."""
    names = tuple(file.stem for file, chosen in zip(files, rows.tolist(), strict=True) if chosen)
    return Views(images[rows], poses[rows].float(), focal, names)


def _bounded(scene: Scene) -> Scene:
    """The scene with its bounds: all rays of all cameras, the video's included.

    In normalised device coordinates they fill convex frustums, and the ends of four rays are the corners of each.
    """
    views = scene.train
    poses = torch.cat([views.poses, scene.test.poses, scene.path])
    x, y = 0.5 * views.width / views.focal, 0.5 * views.height / views.focal
    corners = torch.tensor([[x, y, -1], [x, -y, -1], [-x, y, -1], [-x, -y, -1]])
    directions = torch.einsum("nij,cj->nci", poses[:, :, :3], corners).reshape(-1, 3)
    origins = poses[:, None, :, 3].expand(-1, 4, 3).reshape(-1, 3)
    none = origins.new_zeros(len(origins), 1)
    rays = to_ndc(Rays(origins, directions, directions, none, none), views.height, views.width, views.focal)
    ends = torch.cat([rays.origins, rays.origins + rays.directions])
    margin = 1e-3 * (ends.amax(dim=0) - ends.amin(dim=0))
    return replace(scene, bounds=torch.stack([ends.amin(dim=0) - margin, ends.amax(dim=0) + margin]))
