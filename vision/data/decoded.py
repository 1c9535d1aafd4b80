"""A cache of decoded images: decoding takes seconds and is done once for each source.

A cached file is an npz without compression, whose checksums numpy verifies. A damaged file is decoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.data import cache_dir
from harness.errors import UserError
from harness.files import replacing
from vision.data.formats import Images, checked, read_npz

NEW_CACHE = "Free some space, or set TINYDFA_CACHE to another folder"


def kept_images(key: str, decode: Callable[[], Images]) -> Images:
    """What `decode` returns, from the cache if it was called before.

    Args:
        key: Names the content that is decoded, such as a sha256; two contents must not share one.
        decode: Called if nothing readable is kept.

    Raises:
        UserError: the cache cannot be written.
    """
    path = cache_dir() / "vision" / f"{key}.npz"
    if path.is_file():
        try:
            return checked(path, *read_npz(path, ("images", "labels")))
        except UserError:
            pass  # damaged: written over below
    images, labels = decode()
    _write(path, images, labels)
    return images, labels


def _write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    with replacing(path, NEW_CACHE) as file:
        np.savez(file, images=images, labels=labels)
