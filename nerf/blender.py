"""The format of the NeRF synthetic scenes, as Blender exports them (Mildenhall et al. 2020).

    <folder>/transforms_train.json    camera_angle_x, and per frame file_path and transform_matrix
             transforms_test.json
             train/r_0.png ...        RGBA, square pixels

`camera_angle_x` is the horizontal field of view in radians; `transform_matrix` is camera-to-world, 4 x 4, in OpenGL's
axes with z up. Objects fit a box of half width 1.5 around the origin, and cameras are about 4 away from it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError
from nerf.cameras import turntable
from nerf.images import read_images
from nerf.scene import Scene, Views

NAMES = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
NEAR, FAR = 2.0, 6.0
HALF_WIDTH = 1.5
LARGEST = 1e30  # of a coordinate; float32 ends at 3.4e38
PATH_POSES = 120
PATH_ELEVATION = 30.0  # degrees


def read_blender(folder: Path, size: int | None = None) -> Scene:
    """Read a scene: all its training views, all its test views.

    Args:
        folder: Where the two `transforms_*.json` are; also the scene's name.
        size: Width of the pictures; None: as stored. A height follows, by the average over areas.

    Raises:
        UserError: a file is missing or malformed (it is named), or `size` does not fit.
    """
    train, transparent = _read_views(folder, "train", size)
    test, _ = _read_views(folder, "test", size)
    radius = float(train.poses[:, :, 3].norm(dim=1).median())
    return Scene(
        name=folder.name,
        train=train,
        test=test,
        near=NEAR,
        far=FAR,
        white_background=transparent,
        ndc=False,
        path=turntable(PATH_POSES, PATH_ELEVATION, radius),
        bounds=torch.tensor([[-HALF_WIDTH] * 3, [HALF_WIDTH] * 3]),
    )


def _read_views(folder: Path, split: str, size: int | None) -> tuple[Views, bool]:
    """The views of "train" or "test", and whether their files have an alpha channel."""
    path = folder / f"transforms_{split}.json"
    angle, frames = _parse(path)
    files = [folder / (name if Path(name).suffix else f"{name}.png") for name, _ in frames]
    images, transparent = read_images(files, size)
    focal = 0.5 * images.shape[2] / math.tan(0.5 * angle)
    poses = torch.tensor([matrix[:3] for _, matrix in frames])
    return Views(images, poses, focal, tuple(file.stem for file in files)), transparent


def _parse(path: Path) -> tuple[float, list[tuple[str, list[list[float]]]]]:
    """The field of view, and each frame's file and matrix."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. A scene in the Blender format needs it.") from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise UserError(f"{path} is not JSON ({error}). Replace it.") from None
    angle: Any = content.get("camera_angle_x") if isinstance(content, dict) else None
    if not _number(angle) or not 0 < angle < math.pi:
        raise UserError(f"{path}: camera_angle_x is {angle}, not an angle in radians. Replace the file.")
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise UserError(f"{path}: there is no list of frames. Replace the file.")
    return angle, [_frame(path, index, frame) for index, frame in enumerate(frames)]


def _frame(path: Path, index: int, frame: Any) -> tuple[str, list[list[float]]]:
    """A frame's file and matrix."""
    content = frame if isinstance(frame, dict) else {}
    name: Any = content.get("file_path")
    matrix: Any = content.get("transform_matrix")
    if not isinstance(name, str) or not name:
        raise UserError(f"{path}: frame {index} has no file_path. Replace the file.")
    if not _is_matrix(matrix):
        raise UserError(f"{path}: the transform_matrix of frame {index} is not 4 x 4 numbers. Replace the file.")
    return name, matrix


def _is_matrix(value: Any) -> bool:
    """Whether it is a list of 4 rows (3 will do) of 4 numbers."""
    if not isinstance(value, list) or len(value) not in (3, 4):
        return False
    return all(isinstance(row, list) and len(row) == 4 and all(map(_number, row)) for row in value)


def _number(value: Any) -> bool:
    """Whether it is a number that float32 can hold, with room for sums and squares of the root."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
