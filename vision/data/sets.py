"""Image sets by name, as tensors: what an experiment trains on, what it holds out, what it tests on.

Letters: N samples, C channels, H rows, W columns, f features of a vector, t targets of a regression.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UserError
from harness.files import name_of
from vision.data.files import read_cifar10, read_fashion_mnist, read_mnist
from vision.data.folders import read_folder
from vision.data.formats import CLASSES
from vision.data.splits import Data, Split
from vision.data.synthetic import digits, drtp_classification, drtp_regression

Arrays = tuple[np.ndarray, np.ndarray]  # samples, bytes or float32, and their targets

READERS: dict[str, Callable[[Path | None], tuple[Arrays, Arrays]]] = {
    "digits": lambda _: digits(),
    "mnist": read_mnist,
    "fashion-mnist": read_fashion_mnist,
    "cifar10": read_cifar10,
    "drtp-regression": lambda _: drtp_regression(),
    "drtp-classification": lambda _: drtp_classification(),
}
DATASETS = (*READERS, "synthetic")
CONSTANT = 1e-5  # a standard deviation below this is rounding


def load_data(
    dataset: str = "digits",
    data_dir: Path | None = None,
    *,
    normalise: bool = False,
    pad_to: int | None = None,
    hold_out: int = 0,
    seed: int = 0,
    image_dir: Path | None = None,
    image_size: int | None = None,
) -> Data:
    """Read or draw a data set.

    Args:
        dataset: "digits" (also called "synthetic"), "drtp-regression" and "drtp-classification" need no files; "mnist",
            "fashion-mnist" and "cifar10" are found or downloaded (see `vision.data.files`).
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        normalise: Shift and scale every channel (of vectors: every feature) to the mean 0 and the standard deviation 1
            that the training images have before padding; without it pixels are in [0, 1].
        pad_to: Height and width that images get by a black frame.
        hold_out: Training samples, drawn from all classes alike, that become `Data.val`.
        seed: Decides which are held out.
        image_dir: A folder of images in place of `dataset`, see `vision.data.folders`.
        image_size: Height and width that images of `image_dir` are cropped and scaled to; None: all have one size.

    Raises:
        UserError: an unknown name, a file that is missing or damaged, or a size that the samples do not allow.
    """
    found = _named(dataset, data_dir) if image_dir is None else _own(image_dir, image_size)
    parts = _held_out(found, hold_out, seed)
    splits = [Split(_pixels(x), torch.from_numpy(y)) for x, y in parts]
    if normalise:
        mean, std = _statistics(splits[0].x)
    splits = [replace(split, x=_padded(split.x, pad_to, found.name)) for split in splits]
    if normalise:
        for split in splits:
            split.x.sub_(mean).div_(std)
    return Data(
        name=found.name,
        train=splits[0],
        val=splits[1] if len(splits) == 3 else None,
        test=splits[-1],
        classes=found.classes,
        outputs=found.classes or splits[0].y.shape[1],
        shape=tuple(splits[0].x.shape[1:]),
    )


class _Found(NamedTuple):
    """A data set as it was read."""

    name: str
    train: Arrays
    val: Arrays | None
    test: Arrays
    classes: int | None


def _named(dataset: str, data_dir: Path | None) -> _Found:
    """A data set of `DATASETS`."""
    if dataset not in DATASETS:
        raise UserError(f"--dataset {dataset}: no such data set. There are {', '.join(DATASETS)}.")
    name = "digits" if dataset == "synthetic" else dataset
    train, test = READERS[name](data_dir)
    if train[0].shape[1:] != test[0].shape[1:]:
        sizes = " and ".join("x".join(map(str, x.shape[1:])) for x in (train[0], test[0]))
        raise UserError(f"{name}: training and test images differ in size, {sizes}. Replace the files.")
    return _Found(name, train, None, test, CLASSES if np.issubdtype(train[1].dtype, np.integer) else None)


def _own(folder: Path, size: int | None) -> _Found:
    """A folder of images."""
    images = read_folder(folder, size)
    return _Found(name_of(folder, "images"), images.train, images.val, images.test, len(images.classes))


def _held_out(found: _Found, count: int, seed: int) -> list[Arrays]:
    """Samples for training, for choosing an epoch if there are some, and for tests."""
    if found.val is not None:
        if count:
            raise UserError(f"--hold-out {count}: {found.name} has a folder of held-out images. Leave one of them out.")
        return [found.train, found.val, found.test]
    kept, held = _rows(len(found.train[0]), count, seed)
    return [_select(found.train, kept), _select(found.train, held), found.test] if count else [found.train, found.test]


def _rows(count: int, hold_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of `count` are trained on, in their order, and which are held out."""
    if not 0 <= hold_out < count:
        raise UserError(f"--hold-out {hold_out}: of {count} training samples, 0 to {count - 1} can be held out.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    return np.sort(order[hold_out:]), np.sort(order[:hold_out])


def _select(arrays: Arrays, rows: np.ndarray) -> Arrays:
    """Those rows of both."""
    return arrays[0][rows], arrays[1][rows]


def _pixels(x: np.ndarray) -> Tensor:
    """Bytes as float32 in [0, 1]; what is float32 already stays."""
    pixels = torch.empty(x.shape)
    if x.dtype == np.uint8:
        np.divide(x, np.float32(255), out=pixels.numpy())
    else:
        pixels.numpy()[:] = x
    return pixels


def _padded(x: Tensor, size: int | None, name: str) -> Tensor:
    """Images in the middle of a black square of `size`; where a margin is odd, the smaller half is above and left."""
    if size is None or tuple(x.shape[2:]) == (size, size):
        return x
    if x.dim() != 4 or max(x.shape[2:]) > size:
        found = "x".join(map(str, x.shape[1:]))
        raise UserError(f"pad_to {size}: the samples of {name} are {found} and cannot be padded to {size}x{size}.")
    margins = [size - length for length in (x.shape[3], x.shape[2])]
    return F.pad(x, [part for margin in margins for part in (margin // 2, math.ceil(margin / 2))])


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (divided by N) per channel, ``[1, C, 1, 1]``, or per feature of vectors, ``[1, f]``.

    What is constant up to rounding counts as having the deviation 1. A few samples at a time, because torch's own
    deviation takes ten times as long.
    """
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean = x.mean(axes, keepdim=True)
    squares = torch.stack([(part - mean).square_().mean(axes, keepdim=True) * len(part) for part in x.split(1000)])
    std = (squares.sum(dim=0) / len(x)).sqrt()
    return mean, torch.where(std > CONSTANT, std, 1.0)
