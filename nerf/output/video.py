"""Pictures of rendered scenes: depth in colours, pictures side by side, films.

Pictures are float32 ``[H, W, 3]`` in 0..1, on the CPU; films are a sequence of them. Files are there whole or not at
all.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError, writing
from harness.files import write_whole

COLOUR_MAP = "viridis"
CAPTION = 16  # pixels, the height of the line above a picture
GAP = 4  # pixels between pictures
FILMS = (".mp4", ".gif")
GIF_RATE = 50  # pictures a second: most programs show a frame of less than 0.02 s for 0.1 s


def colour_depth(depth: Tensor, near: float, far: float, opacity: Tensor | None = None) -> Tensor:
    """Depths ``[..., H, W]`` as colours ``[..., H, W, 3]``: near bright, far dark; white where there is nothing.

    Args:
        depth: In the units of `near` and `far`; depths beyond them are clamped.
        near: The depth of the brightest colour.
        far: That of the darkest.
        opacity: ``[..., H, W]`` in 0..1, how far colours cover the white; None: fully.
    """
    from matplotlib import colormaps

    nearness = ((far - depth) / (far - near)).clamp(0, 1)
    colours = torch.from_numpy(colormaps[COLOUR_MAP](nearness.numpy())[..., :3].astype(np.float32))
    return colours if opacity is None else 1 - opacity[..., None] * (1 - colours)


def beside(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures of one height, from left to right, with white between them: ``[H, sum of W and gaps, 3]``."""
    gap = torch.ones(pictures[0].shape[0], GAP, 3)
    return torch.cat([part for picture in pictures for part in (gap, picture)][1:], dim=1)


def write_strip(path: Path, rows: Sequence[Mapping[str, Tensor]], scale: int = 1) -> None:
    """Write rows of pictures with a caption above each, as a PNG.

    Args:
        path: The file.
        rows: From the top; each maps captions to pictures, such as {"truth": ..., "BP": ..., "DFA": ...}.
        scale: Times that each pixel is repeated, across and down.

    Raises:
        UserError: it cannot be written.
    """
    from PIL import Image

    parts = [_captioned(row, scale) for row in rows]
    width = max(part.shape[1] for part in parts)
    padded = [torch.nn.functional.pad(part, (0, 0, 0, width - part.shape[1]), value=1.0) for part in parts]
    content = io.BytesIO()
    Image.fromarray(to_bytes(torch.cat(padded))).save(content, format="PNG")
    write_whole(path, content.getvalue())


def write_film(path: Path, pictures: Sequence[Tensor], rate: int = 20) -> None:
    """Write a film, by the name's suffix as MP4 (H.264) or as a GIF that loops.

    Args:
        path: A name that ends in .mp4 or .gif.
        pictures: Of one size. In an MP4 odd sizes get one more row or column of white: the format wants even ones.
        rate: Pictures a second, in a GIF at most 50. Its pictures last whole hundredths of a second, some one more than
            others, so that the film as a whole lasts as long as its rate says.

    Raises:
        UserError: another suffix, a rate that the format does not have, or it cannot be written.
    """
    import imageio.v3 as iio

    if path.suffix not in FILMS:
        raise UserError(f"{path}: films are written as {' or '.join(FILMS)}. Give the file one of these suffixes.")
    if path.suffix == ".gif" and rate > GIF_RATE:
        raise UserError(f"{path}: {rate} pictures a second are too many for a GIF. Give at most {GIF_RATE}, or .mp4.")
    frames = np.stack([to_bytes(picture) for picture in pictures])
    with writing(path), tempfile.TemporaryDirectory() as folder:
        unfinished = Path(folder) / path.name
        if path.suffix == ".gif":
            lasting = durations(len(frames), rate)
            iio.imwrite(unfinished, frames, extension=".gif", plugin="pillow", duration=lasting, loop=0)
        else:
            _write_mp4(unfinished, frames, rate)
        write_whole(path, unfinished.read_bytes())


def durations(count: int, rate: int) -> list[int]:
    """How long each of the pictures of a GIF lasts, in milliseconds: multiples of 10 that add up to ``count / rate``.

    Example:
        >>> durations(6, rate=30)
        [30, 40, 30, 30, 40, 30]
    """
    ends = [round(100 * number / rate) for number in range(count + 1)]
    return [10 * (end - start) for start, end in pairwise(ends)]


def _write_mp4(path: Path, frames: np.ndarray, rate: int) -> None:
    """Write pictures ``[N, H, W, 3]``, and check that all are there: ffmpeg does not report a full disk."""
    import imageio.v3 as iio
    from imageio_ffmpeg import count_frames_and_secs

    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    frames = np.pad(frames, odd, constant_values=255)
    iio.imwrite(path, frames, plugin="FFMPEG", fps=rate, codec="libx264", macro_block_size=2)
    try:
        written, _ = count_frames_and_secs(path)
    except RuntimeError:
        written = 0
    if written != len(frames):
        raise OSError(f"{written} of {len(frames)} pictures were written")


def to_bytes(picture: Tensor) -> np.ndarray:
    """A picture as uint8 of the same shape, rounded."""
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _captioned(row: Mapping[str, Tensor], scale: int) -> Tensor:
    """Pictures of a row side by side, enlarged, each below its caption."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=CAPTION - 5)
    columns = []
    for caption, picture in row.items():
        large = picture.repeat_interleave(scale, dim=0).repeat_interleave(scale, dim=1)
        line = Image.new("RGB", (large.shape[1], CAPTION), "white")
        ImageDraw.Draw(line).text((2, 0), caption, fill="black", font=font)
        above = torch.from_numpy(np.asarray(line, dtype=np.float32) / np.float32(255))
        columns.append(torch.cat([above, large]))
    return beside(columns)
