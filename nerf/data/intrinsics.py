"""Parameters of lenses in a camera file, as Blender, instant-ngp and nerfstudio write them.

    w, h                     size of the pictures that the numbers below are for; that of the files if left out
    fl_x, fl_y               focal lengths in pixels; fl_y is fl_x if left out
    camera_angle_x           horizontal field of view in radians, where there is no fl_x
    cx, cy                   principal point in pixels from the upper left corner; the middle if left out
    k1, k2, k3, p1, p2       OpenCV's lens distortion; 0 if left out

A frame may repeat any of these for itself. As in instant-ngp and nerfstudio a focal length in pixels comes before an
angle. Other kinds of lenses are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from harness.errors import UserError
from nerf.scene.lens import Lens

SIZE = ("w", "h")
FOCAL = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
CENTRE = ("cx", "cy")
DISTORTION = ("k1", "k2", "p1", "p2", "k3")
MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
OTHERS = ("k4", "k5", "k6", "s1", "s2", "s3", "s4", "skew", "rolling_shutter", "is_fisheye", "ftheta_p0", "latlong")
KEYS = (*SIZE, *FOCAL, *CENTRE, *DISTORTION, "camera_model", *OTHERS)
LARGEST = 1e30  # of a coordinate; float32 ends at 3.4e38
MIN_ANGLE = 1e-4  # radians
SQUARE = 0.01  # by which two focal lengths may differ and still mean square pixels


def read_lens(content: Mapping[str, Any], frame: Mapping[str, Any], where: str, height: int, width: int) -> Lens:
    """The lens of one frame, for the pictures as they are stored.

    Args:
        content: The file's parameters for all frames.
        frame: Those of this frame.
        where: The file and the frame, for errors.
        height: Rows of the stored pictures.
        width: Columns.

    Raises:
        UserError: a number is none, the lens is of another kind, or the pictures have another shape than the file says.
    """
    said = _said(content, frame)
    _refuse(said, where)
    numbers = {name: _positive(said, name, where) for name in (*SIZE, "fl_x", "fl_y") if name in said}
    across = numbers.get("w") or width * numbers.get("h", height) / height
    down = numbers.get("h") or height * across / width
    if abs(height - down * width / across) > 1:
        raise UserError(
            f"{where}: w and h are {across:g} and {down:g}, and the pictures are {width}x{height}, which is another "
            "shape. Give the pictures that the numbers are for."
        )
    fx = numbers.get("fl_x") or _by_angle(said, "camera_angle_x", across, where)
    fy = numbers.get("fl_y") or _square(said, fx, down, where)
    cx, cy = (_number(said, name, where, middle / 2) for name, middle in (("cx", across), ("cy", down)))
    if not (0 <= cx <= across and 0 <= cy <= down):
        raise UserError(f"{where}: the principal point cx, cy is {cx:g}, {cy:g}, outside of the picture. Correct it.")
    lens = Lens(
        torch.tensor([[fx, fy]], dtype=torch.float64),
        torch.tensor([[cx, cy]], dtype=torch.float64),
        torch.tensor([[_number(said, name, where, 0.0) for name in DISTORTION]], dtype=torch.float64),
    ).resized(width / across, height / down)
    if not bool(lens.is_invertible(height, width).all()):
        raise UserError(
            f"{where}: the distortion {', '.join(f'{name} {said[name]:g}' for name in DISTORTION if said.get(name))} "
            "turns back within the picture, so that a pixel has no one direction. Correct it, or undistort pictures."
        )
    return lens


def is_number(value: Any) -> bool:
    """Whether it is a number that float32 can hold, with room for sums and squares of the root."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _said(content: Mapping[str, Any], frame: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one frame: its own, and those of the file in groups of which it says nothing."""
    found = {name: frame[name] for name in KEYS if name in frame}
    for group in (SIZE, FOCAL, CENTRE, DISTORTION, *((name,) for name in ("camera_model", *OTHERS))):
        if not any(name in frame for name in group):
            found |= {name: content[name] for name in group if name in content}
    return {name: value for name, value in found.items() if value is not None}


def _refuse(said: Mapping[str, Any], where: str) -> None:
    """Raise for lenses of other kinds."""
    way_out = "Undistort the pictures first, for example with COLMAP's image_undistorter."
    model = said.get("camera_model", MODELS[0])
    if not isinstance(model, str) or model.upper() not in MODELS:
        raise UserError(f"{where}: camera_model {str(model)[:40]} is not read, only {', '.join(MODELS)}. {way_out}")
    for name in OTHERS:
        value = said.get(name, 0)
        if value and not (isinstance(value, list) and not any(value)):
            raise UserError(f"{where}: {name} is {str(value)[:40]}, and such a lens is not read. {way_out}")


def _square(said: Mapping[str, Any], fx: float, down: float, where: str) -> float:
    """The focal length up and down where it is not said in pixels: that of square pixels."""
    if "camera_angle_y" in said:
        fy = _by_angle(said, "camera_angle_y", down, where)
        if abs(fy - fx) > SQUARE * fx:  # Blender gives the angle of its sensor, whatever part of it a picture shows
            raise UserError(
                f"{where}: by camera_angle_y the focal length up and down is {fy:.4g} pixels, and {fx:.4g} across. "
                "If pixels are not square give fl_x and fl_y; else remove camera_angle_y."
            )
    return fx


def _by_angle(said: Mapping[str, Any], name: str, pixels: float, where: str) -> float:
    """The focal length with which so many pixels cover an angle."""
    value: Any = said.get(name)
    if not is_number(value) or not MIN_ANGLE < value < math.pi - MIN_ANGLE:
        raise UserError(f"{where}: {name} is {str(value)[:40]}, not an angle in radians. Replace the file.")
    return 0.5 * pixels / math.tan(0.5 * value)


def _positive(said: Mapping[str, Any], name: str, where: str) -> float:
    value = _number(said, name, where, 0.0)
    if not 1e-6 < value < 1e9:
        raise UserError(f"{where}: {name} is {value:g}, which is no size in pixels. Replace the file.")
    return value


def _number(said: Mapping[str, Any], name: str, where: str, default: float) -> float:
    value = said.get(name, default)
    if not is_number(value):
        raise UserError(f"{where}: {name} is {str(value)[:40]}, not a number. Replace the file.")
    return float(value)
