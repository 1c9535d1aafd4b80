"""The file formats of image sets: IDX, the npz of MNIST, the binary CIFAR-10, and JPEG files packed into an npz.

Each reader checks what it reads: a file that is damaged, cut short or something else is an error that names it. None
of them runs code from a file, as a pickle would.

Letters: N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from harness.data.arrays import read_arrays
from harness.errors import UserError

Images = tuple[np.ndarray, np.ndarray]  # uint8 [N, C, H, W], and their classes, int64 [N]

WAY_OUT = "Replace it, or remove it to have the published files downloaded"
CLASSES = 10  # of all the sets read here
CHANNELS = (1, 3)  # grey, or red, green and blue
CIFAR_SHAPE = (3, 32, 32)
CIFAR_RECORD = 1 + math.prod(CIFAR_SHAPE)  # bytes: the class, then the pixels by channel
MNIST_KEYS = (  # of the training and test set, under either spelling
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
UNREADABLE = (OSError, EOFError, ValueError, zlib.error, tarfile.TarError)  # what tarfile raises on damaged files


def read_idx(path: Path, axes: int) -> np.ndarray:
    """An IDX file of unsigned bytes with `axes` axes, plain or compressed by gzip (its content decides, not its name).

    The format: two zero bytes, 8 for unsigned bytes, the number of axes; the length of each axis as four bytes, high
    byte first; the data in rows.

    Raises:
        UserError: the file is of another kind, or holds fewer or more bytes than its header says.
    """
    content = _content(path)
    header = 4 + 4 * axes
    expected = bytes((0, 0, 8, axes))
    if content[:4] != expected:
        raise _damaged(path, f"begins with {content[:4].hex() or 'nothing'} where IDX has {expected.hex()}")
    if len(content) < header:
        raise _damaged(path, f"is cut short: its header has {len(content)} of {header} bytes")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", axes, offset=4))
    if len(content) != header + math.prod(shape):
        promised = f"its header promises {shape[0]:,} entries, {math.prod(shape):,} bytes"
        raise _damaged(path, f"is cut short or too long: {promised}, and {len(content) - header:,} follow")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_mnist_npz(path: Path) -> tuple[Images, Images]:
    """Training and test images of an npz with the keys train_images, train_labels ... or x_train, y_train ...

    Raises:
        UserError: the file is damaged, or lacks the keys.
    """
    x, y, x_test, y_test = read_npz(path, *MNIST_KEYS)
    return checked(path, _one_channel(x), _one_column(y)), checked(path, _one_channel(x_test), _one_column(y_test))


def _one_channel(images: np.ndarray) -> np.ndarray:
    """Grey images ``[N, 1, H, W]`` from ``[N, H, W]``, ``[N, H, W, 1]`` or the same; others as they are."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[3] == 1 != images.shape[1]:
        return np.moveaxis(images, 3, 1)
    return images


def _one_column(labels: np.ndarray) -> np.ndarray:
    """Classes ``[N]`` from ``[N, 1]``; others as they are."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def read_npz(path: Path, *spellings: Sequence[str]) -> list[np.ndarray]:
    """The arrays of an npz under the first of `spellings` whose keys are all there.

    Raises:
        UserError: the file is damaged, holds Python objects, or has none of the spellings.
    """

    def choose(present: list[str]) -> Sequence[str]:
        for keys in spellings:
            if set(keys) <= set(present):
                return keys
        wanted = " or ".join(", ".join(keys) for keys in spellings)
        raise _damaged(path, f"lacks the keys {wanted}; it has {', '.join(present) or 'none'}")

    return list(read_arrays(path, choose, WAY_OUT).values())


def read_cifar_binary(path: Path) -> Images:
    """Images of one file of the binary CIFAR-10: for each image its class, then red, green and blue, rows first.

    Raises:
        UserError: its length is not that of whole images, or a class is not in 0..9.
    """
    return cifar_records(_content(path), path)


def cifar_records(content: bytes, path: Path) -> Images:
    """The same for what such a file holds; `path` is for messages."""
    if not content or len(content) % CIFAR_RECORD:
        raise _damaged(path, f"is cut short: {len(content):,} bytes are no multiple of an image's {CIFAR_RECORD:,}")
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_RECORD)
    return checked(path, records[:, 1:].reshape(-1, *CIFAR_SHAPE), records[:, 0])


def read_tar(path: Path, members: Sequence[str]) -> list[bytes]:
    """What the files `members` of a tar archive hold. Nothing is unpacked to disk, and no other member is looked at.

    Raises:
        UserError: the archive is damaged, or lacks one of them.
    """
    try:
        with tarfile.open(path) as archive:
            return [_member(archive, name) for name in members]
    except KeyError as error:
        raise _damaged(path, f"is another archive: it has no file {error.args[0]}") from error
    except UNREADABLE as error:
        raise _damaged(path, f"cannot be read as a tar archive ({error})") from error


def decode_jpeg_pack(path: Path) -> Images:
    """Images of an npz of JPEG files: `bytes` (all files end to end), `offsets` int64 [N + 1], `labels` [N].

    Takes seconds for CIFAR-10; `vision.data.files` keeps the result.

    Raises:
        UserError: the file is damaged, or an image of it.
    """
    from PIL import Image

    content, offsets, labels = read_npz(path, ("bytes", "offsets", "labels"))
    ends = [0, *offsets[1:].tolist()]
    if content.dtype != np.uint8 or ends != sorted(ends) or ends[-1] != content.size or offsets[:1].tolist() != [0]:
        raise _damaged(path, "is damaged: its offsets do not divide its bytes")
    packed, images = content.tobytes(), []
    for number, (start, end) in enumerate(pairwise(ends)):
        try:
            with Image.open(io.BytesIO(packed[start:end]), formats=["JPEG"]) as image:
                images.append(np.asarray(image.convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:
            raise _damaged(path, f"is damaged: its image {number} is no JPEG file ({error})") from error
    if len({image.shape for image in images}) > 1:
        raise _damaged(path, "holds images of several sizes")
    pixels = np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8)
    return checked(path, np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), labels)


def checked(path: Path, images: np.ndarray, labels: np.ndarray) -> Images:
    """The same images, classes as int64.

    Raises:
        UserError: they are not bytes ``[N, C, H, W]`` with as many classes in 0..9. `path` is where they are from.
    """
    if images.dtype != np.uint8:
        raise _damaged(path, f"holds images as {images.dtype}, where they are bytes (uint8, 0 to 255)")
    if images.ndim != 4 or images.shape[1] not in CHANNELS:
        shape = "x".join(map(str, images.shape))
        raise _damaged(path, f"holds images of shape {shape}, where grey ones are [N, H, W] or [N, H, W, 1]")
    if not np.issubdtype(labels.dtype, np.integer):
        raise _damaged(path, f"holds labels as {labels.dtype}, where they are whole numbers")
    if labels.ndim != 1:
        shape = "x".join(map(str, labels.shape))
        raise _damaged(path, f"holds labels of shape {shape}, where they are [N] or [N, 1], one class an image")
    if len(images) != len(labels):
        raise _damaged(path, f"does not fit: there are {len(images):,} images and {len(labels):,} labels")
    if images.size == 0:
        raise _damaged(path, "holds no images")
    if labels.min() < 0 or labels.max() >= CLASSES:
        row = int(((labels < 0) | (labels >= CLASSES)).argmax())
        raise _damaged(path, f"is damaged: label {row} is {labels[row]}, and classes are 0 to {CLASSES - 1}")
    return images, labels.astype(np.int64)


def _content(path: Path) -> bytes:
    """The content of a file, decompressed if it is compressed by gzip."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is cut short or damaged: it does not decompress ({error})") from error
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror or error})") from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """The content of one regular file of an archive; KeyError if there is none of that name."""
    if name not in archive.getnames():
        raise KeyError(name)
    member = archive.getmember(name)
    file = archive.extractfile(member) if member.isreg() else None
    if file is None:
        raise KeyError(name)
    with file:
        return file.read()


def _damaged(path: Path, cause: str) -> UserError:
    return UserError(f"{path} {cause}. {WAY_OUT}.")
