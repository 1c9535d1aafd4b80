"""Picture files as tensors: of one size, before one background, averaged down to the size asked for.

Letters: H rows, W columns; h, w the same of a smaller picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from harness.errors import UserError
from nerf.data.pixels import read_header, read_pixels

Background = Literal["white", "black"]


def read_images(paths: Sequence[Path], size: int | None = None, background: float = 1.0) -> tuple[Tensor, bool]:
    """Pictures of one size, ``[N, h, w, 3]`` in 0..1, and whether any has an alpha channel.

    Args:
        paths: Files, at least one.
        size: w; None: as stored.
        background: The grey in 0..1 that is seen through what is transparent.

    Raises:
        UserError: a file is missing, is no picture, or has another size than the first; or `size` does not fit.
    """
    headers = [read_header(path) for path in paths]
    height, width, _ = headers[0]
    for path, (rows, columns, _) in zip(paths, headers, strict=True):
        if (rows, columns) != (height, width):
            found, first = f"{columns}x{rows}", f"{width}x{height}"
            raise UserError(f"{path} is {found} where {paths[0].name} is {first}. All pictures must have one size.")
    target = (height, width) if size is None else _smaller(height, width, size)
    images = torch.stack([_at(read_pixels(path, background), *target) for path in paths])
    return images, any(alpha for _, _, alpha in headers)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture file, from its header.

    Raises:
        UserError: it is missing or no picture.
    """
    return read_header(path)[:2]


def has_white_background(paths: Sequence[Path], asked: Background | None) -> bool:
    """Whether the background of a scene is white: one for all its pictures and every ray.

    If the user does not say, it is white where the pictures have an alpha channel, and black where they have none.

    Args:
        paths: All its pictures, of training and of testing.
        asked: The user's choice.

    Raises:
        UserError: some have an alpha channel and some have not, and the user does not choose.
    """
    if asked is not None:
        return asked == "white"
    alphas = [read_header(path)[2] for path in paths]
    if any(alphas) and not all(alphas):
        clear, opaque = paths[alphas.index(True)], paths[alphas.index(False)]
        raise UserError(
            f"{clear} has an alpha channel and {opaque} has none, so what is behind the scene is not known. Choose it "
            "with --background white or --background black."
        )
    return any(alphas)


def area_average(pixels: Tensor, height: int, width: int) -> Tensor:
    """A picture ``[H, W, C]`` made smaller, ``[h, w, C]``: each new pixel is the mean over the area that it covers.

    Pixels on an edge of the area count by the part of them that is inside, so every size is exact.
    """
    rows = _overlaps(pixels.shape[0], height).to(pixels)
    columns = _overlaps(pixels.shape[1], width).to(pixels)
    return columns @ (rows @ pixels.flatten(1)).unflatten(1, pixels.shape[1:])


def _overlaps(old: int, new: int) -> Tensor:
    """``[new, old]``: which part of each new pixel an old one covers; rows add up to 1."""
    edges = torch.arange(old + 1, dtype=torch.float64) * (new / old)  # of old pixels, in new ones
    lower, upper = edges[:-1], edges[1:]
    start = torch.arange(new, dtype=torch.float64)[:, None]
    return (torch.minimum(upper, start + 1) - torch.maximum(lower, start)).clamp(min=0)


def _smaller(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width at the width `size`."""
    step = width // math.gcd(height, width)
    if not 1 <= size <= width:
        raise UserError(f"--size {size}: the pictures are {width} wide and are only made smaller. Give 1 to {width}.")
    if size % step:
        raise UserError(
            f"--size {size}: pictures of {width}x{height} would get a height of {height * size / width:.2f}. "
            f"Give a multiple of {step}."
        )
    return height * size // width, size


def _at(pixels: Tensor, height: int, width: int) -> Tensor:
    """A picture of that size, made smaller if it is not."""
    return pixels if pixels.shape[:2] == (height, width) else area_average(pixels, height, width)
