"""Scenes whose cameras are in JSON: those of NeRF (Mildenhall et al. 2020), of instant-ngp and of nerfstudio.

    <folder>/transforms_train.json    camera_angle_x, and per frame file_path and transform_matrix
             transforms_test.json
             transforms_val.json      if there is one, to choose settings by
             train/r_0.png ...        RGBA, square pixels

`transform_matrix` is camera-to-world, 4 x 4, in OpenGL's axes with z up. Parameters of lenses are read
by `nerf.data.intrinsics`, the files by `nerf.data.transforms`.

In the published scenes an object fits a box of half width 1.5 around the origin, cameras are about 4 away from it, and
rays run from 2 to 6. Another scene is moved and scaled until its cameras are 4 away from the origin, which is what
they look at; rays then run from half the way to it of the nearest camera to one and a half times that of the farthest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from harness.errors import UserError
from nerf.data.images import Background, has_white_background, image_size, read_images
from nerf.data.intrinsics import LARGEST, read_lens
from nerf.data.transforms import CameraFile, note, read_split, read_validation
from nerf.scene.lens import joined
from nerf.scene.placing import PATH_POSES, as_path, focus_point, ray_bounds, rescaled
from nerf.scene.poses import turntable
from nerf.scene.views import Scene, Views

NAMES = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
NEAR, FAR = 2.0, 6.0
HALF_WIDTH = 1.5
DISTANCE, LIKE_PUBLISHED = 4.0, (3.0, 5.0)  # of cameras from what they look at
PATH_ELEVATION = 30.0  # degrees


class Placing(NamedTuple):
    """Where rays begin and end, in the units of the file, and how the file's coordinates are transformed."""

    near: float
    far: float
    origin: Tensor  # [3], the new one
    scale: float
    centred: bool  # cameras look at the new origin


def read_blender(
    folder: Path,
    size: int | None = None,
    *,
    near: float | None = None,
    far: float | None = None,
    background: Background | None = None,
    validation: bool = False,
) -> Scene:
    """Read a scene: all its training views, all its test views.

    Args:
        folder: Where the camera files are; also the scene's name.
        size: Width of the pictures; None: as stored. A height follows, by the average over areas.
        near: Where rays begin, in the units of the file; None: by the file, else by its cameras.
        far: Where they end.
        background: What is behind the scene; None: white if the pictures have an alpha channel, else black.
        validation: Read the validation views as well, if the scene has any.

    Raises:
        UserError: a file is missing or malformed (it is named), or `size` does not fit.
    """
    splits = list(read_split(folder))
    if validation and (chosen_by := read_validation(folder, splits)) is not None:
        splits.append(chosen_by)
    white = has_white_background([frame.file for split in splits for frame in split.frames], background)
    read = [_read_views(split, size, float(white)) for split in splits]
    said = splits[0].range()
    placing = _placing(splits[0], read[0].poses, said[0] if near is None else near, said[1] if far is None else far)
    read = [replace(views, poses=rescaled(views.poses, placing.origin, placing.scale).float()) for views in read]
    train, test, *val = read
    scene = Scene(
        name=folder.name,
        train=train,
        test=test,
        near=placing.near * placing.scale,
        far=placing.far * placing.scale,
        white_background=white,
        ndc=False,
        path=_path(train.poses, placing.centred),
        bounds=torch.tensor([[-HALF_WIDTH] * 3, [HALF_WIDTH] * 3]),
        val=val[0] if val else None,
    )
    published = placing.centred and (placing.near, placing.far) == (NEAR, FAR) and not placing.origin.any()
    return scene if published else replace(scene, bounds=ray_bounds(scene, read))


def _read_views(split: CameraFile, size: int | None, background: float) -> Views:
    """The views of one split, at the poses of the file, in float64."""
    files = [frame.file for frame in split.frames]
    height, width = image_size(files[0])
    lens = joined([read_lens(split.content, frame.said, frame.where, height, width) for frame in split.frames])
    images = read_images(files, size, background)[0]
    poses = torch.tensor([frame.matrix for frame in split.frames], dtype=torch.float64)
    lens = lens.resized(images.shape[2] / width, images.shape[1] / height)
    return Views(images, poses, lens, tuple(path.stem for path in files))


def _placing(file: CameraFile, poses: Tensor, near: float | None, far: float | None) -> Placing:
    """Where rays begin and end, by what is given and by the cameras, ``[N, 3, 4]``."""
    point = focus_point(poses)
    if point is None:
        return _without_focus(file, near, far)
    away = (poses[:, :, 3] - point).norm(dim=1)
    nearest, farthest = float(away.min()), float(away.max())
    published = float(point.norm()) < HALF_WIDTH and LIKE_PUBLISHED[0] <= nearest and farthest <= LIKE_PUBLISHED[1]
    origin, scale = (torch.zeros_like(point), 1.0) if published else (point, DISTANCE / float(away.median()))
    start = (NEAR if published else min(NEAR / scale, 0.5 * nearest)) if near is None else near
    end = (FAR if published else max(FAR / scale, 1.5 * farthest)) if far is None else far
    _check_range(file, start, end)
    if end <= nearest or start >= farthest:
        raise UserError(
            f"{file.path}: its cameras look at something {nearest:.3g} to {farthest:.3g} away, and rays run from "
            f"{start:g} to {end:g}, in the units of the file. Give --near and --far that hold it."
        )
    if not published:
        note(
            f"{file.path}: its cameras are {nearest:.3g} to {farthest:.3g} away from what they look at; the scene is "
            f"centred there and made {scale:.3g} times as large, and rays run from {start:.3g} to {end:.3g} in the "
            "units of the file (--near and --far say otherwise)"
        )
    return Placing(start, end, origin, scale, centred=True)


def _without_focus(file: CameraFile, near: float | None, far: float | None) -> Placing:
    """Where rays begin and end if the cameras do not tell: as published; refused for one file for all."""
    if near is None or far is None:
        if file.path.name == "transforms.json":
            raise UserError(
                f"{file.path}: its cameras look at no common point, so how far away the scene is cannot be told. Say "
                "where rays begin and end with --near and --far, in the units of the file."
            )
        note(
            f"{file.path}: its cameras look at no common point, and rays run from {near or NEAR:g} to {far or FAR:g} "
            "(--near and --far say otherwise)"
        )
    start, end = near or NEAR, far or FAR
    _check_range(file, start, end)
    return Placing(start, end, torch.zeros(3, dtype=torch.float64), 1.0, centred=False)


def _check_range(file: CameraFile, near: float, far: float) -> None:
    if not 0 < near < far < LARGEST:
        raise UserError(f"{file.path}: rays would run from {near:g} to {far:g}. Give a --near that is less than --far.")


def _path(poses: Tensor, centred: bool) -> Tensor:
    """Poses for a video: a turntable as far away as the cameras, or the cameras themselves."""
    if not centred:
        return as_path(poses)
    return turntable(PATH_POSES, PATH_ELEVATION, float(poses[:, :, 3].norm(dim=1).median()))
