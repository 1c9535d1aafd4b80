"""Read one picture file: bit depth, transparency, and the kinds that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
LARGEST = 100_000_000  # pixels of a picture; a larger size is more likely damage than intended
GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")


def read_header(path: Path) -> tuple[int, int, bool]:
    """Height, width, and whether there is an alpha channel or a transparent colour, without reading the pixels.

    Raises:
        UserError: the file is missing, or no picture, or one of a kind that is not read.
    """
    with _opened(path) as image:
        return image.height, image.width, image.has_transparency_data


def read_pixels(path: Path, background: float) -> Tensor:
    """A picture ``[H, W, 3]`` in 0..1, float32; `background`, a grey in 0..1, is seen through what is transparent.

    Raises:
        UserError: the file is missing, or no picture, or one of a kind that is not read.
    """
    with _opened(path) as image:
        try:
            return torch.from_numpy(_colours(image, background))
        except Exception as error:  # decoders raise many types of errors for damaged files
            raise unreadable(path, error) from None


def _colours(image: Image, background: float) -> np.ndarray:
    if image.mode in GREY_16:
        grey = np.asarray(image).astype(np.float32) / np.float32(65535)
        return np.repeat(grey[..., None], 3, axis=2)
    alpha = image.has_transparency_data
    pixels = np.asarray(image.convert("RGBA" if alpha else "RGB"), dtype=np.float32) / np.float32(255)
    if alpha:
        pixels = pixels[..., :3] * pixels[..., 3:] + np.float32(background) * (1 - pixels[..., 3:])
    return pixels


def _opened(path: Path) -> Image:
    """The picture, its pixels not read yet."""
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # LARGEST is checked below
            image = Image.open(path)
            why = _refused(image)
    except Exception as error:  # decoders of damaged files raise errors of many kinds
        raise unreadable(path, error) from None
    if why is not None:
        image.close()
        raise UserError(f"{path} {why}.")
    return image


def _refused(image: Image) -> str | None:
    """Why a picture is of a kind that is not read, or None."""
    if image.width * image.height > LARGEST:
        return f"says that it is {image.width}x{image.height} pixels. Make it smaller, or replace it"
    if image.mode in ("F", "I"):
        kind = "floating-point numbers" if image.mode == "F" else "whole numbers of 32 bits"
        return f"holds {kind}, whose white is not known. Save it with 8 or 16 bits a channel"
    if image.mode in GREY_16 and image.has_transparency_data:
        return "is grey of 16 bits with a transparent shade. Save it with 8 bits and an alpha channel"
    count = getattr(image, "n_frames", 1)
    if count > 1 and image.format != "MPO":  # a phone's photograph and its preview
        return f"holds {count} pictures, and a view is one. Save them as files of their own"
    return None


def unreadable(path: Path, error: Exception) -> UserError:
    """The error of a file that is missing or broken."""
    try:
        missing = not path.is_file()
    except (OSError, ValueError):
        missing = True
    if missing:
        return UserError(f"{path}: no such file. The scene is not whole: unpack it again.")
    return UserError(f"{path} cannot be read as a picture ({' '.join(str(error).split())[:100]}). Replace it.")
