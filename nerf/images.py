"""Picture files as tensors: on white where they are transparent, averaged down to the size asked for.

Letters: H rows, W columns; h, w the same of a smaller picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError


def read_images(paths: Sequence[Path], size: int | None = None) -> tuple[Tensor, bool]:
    """Pictures of one size, ``[N, h, w, 3]`` in 0..1, and whether any has an alpha channel.

    Args:
        paths: Files, at least one.
        size: w; None: as stored.

    Raises:
        UserError: a file is missing, is no picture, or has another size than the first; or `size` does not fit.
    """
    images, transparent, stored = [], False, None
    for path in paths:
        pixels, alpha = _read(path)
        stored = stored or pixels.shape
        if pixels.shape != stored:
            found, first = (f"{shape[1]}x{shape[0]}" for shape in (pixels.shape, stored))
            raise UserError(f"{path} is {found} where {paths[0].name} is {first}. All pictures must have one size.")
        images.append(
            pixels if size is None else area_average(pixels, *_smaller(pixels.shape[0], pixels.shape[1], size))
        )
        transparent = transparent or alpha
    return torch.stack(images), transparent


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture file, from its header.

    Raises:
        UserError: it is missing or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError) as error:
        raise _unreadable(path, error) from None


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


def _read(path: Path) -> tuple[Tensor, bool]:
    """A picture ``[H, W, 3]`` in 0..1, on white, and whether it has an alpha channel."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            alpha = image.has_transparency_data
            pixels = np.asarray(image.convert("RGBA" if alpha else "RGB"), dtype=np.float32) / np.float32(255)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:  # SyntaxError: pillow's word for a broken PNG
        raise _unreadable(path, error) from None
    if alpha:
        pixels = pixels[..., :3] * pixels[..., 3:] + (1 - pixels[..., 3:])
    return torch.from_numpy(pixels), alpha


def _unreadable(path: Path, error: Exception) -> UserError:
    if not path.is_file():
        return UserError(f"{path}: no such file. The scene is not whole: unpack it again.")
    return UserError(f"{path} cannot be read as a picture ({error}). Replace it.")
