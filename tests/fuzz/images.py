"""Small valid image sets of every format that `vision` reads."""

import gzip
import io
import random
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fuzz.formats import Format
from vision.data.sets import load_data
from vision.data.splits import Data

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
COUNTS = (12, 5)  # images for training and for tests


def pixels(rng: random.Random, *shape: int) -> np.ndarray:
    return np.frombuffer(rng.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)


def labels(rng: random.Random, count: int) -> np.ndarray:
    return np.array([rng.randrange(10) for _ in range(count)], np.uint8)


def make_idx(folder: Path, rng: random.Random) -> Path:
    """Four IDX files, plain or compressed, in our folder or torchvision's."""
    place = folder / rng.choice(["mnist", "MNIST/raw"])
    place.mkdir(parents=True)
    packed = rng.random() < 0.5
    arrays = [part for count in COUNTS for part in (pixels(rng, count, 6, 5), labels(rng, count))]
    for name, array in zip(IDX_NAMES, arrays, strict=True):
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        (place / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)
    return folder


def make_npz(folder: Path, rng: random.Random) -> Path:
    """MNIST in one npz, with or without an axis of channels."""
    (folder / "mnist").mkdir()
    shape = rng.choice([(6, 5), (6, 5, 1), (1, 6, 5)])
    arrays = [part for count in COUNTS for part in (pixels(rng, count, *shape), labels(rng, count))]
    save = rng.choice([np.savez, np.savez_compressed])
    save(folder / "mnist" / "mnist.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))
    return folder


def cifar_batches(rng: random.Random) -> dict[str, bytes]:
    return {name: b"".join(bytes([rng.randrange(10)]) + rng.randbytes(3072) for _ in range(2)) for name in BATCHES}


def make_cifar(folder: Path, rng: random.Random) -> Path:
    """CIFAR-10's binary batches."""
    place = folder / "cifar10" / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    for name, content in cifar_batches(rng).items():
        (place / name).write_bytes(content)
    return folder


def make_cifar_tar(folder: Path, rng: random.Random) -> Path:
    """The same in their archive."""
    (folder / "cifar10").mkdir()
    with tarfile.open(folder / "cifar10" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name, content in cifar_batches(rng).items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder


def make_jpegs(folder: Path, rng: random.Random) -> Path:
    """CIFAR-10 as JPEG files packed into two npz."""
    (folder / "cifar10").mkdir()
    for name, count in zip(("train", "test"), COUNTS, strict=True):
        files = []
        for image in pixels(rng, count, 32, 32, 3):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG")
            files.append(buffer.getvalue())
        offsets = np.cumsum([0, *map(len, files)])
        content = np.frombuffer(b"".join(files), np.uint8)
        np.savez(folder / "cifar10" / f"{name}.npz", bytes=content, offsets=offsets, labels=labels(rng, count))
    return folder


def make_classes(folder: Path, rng: random.Random) -> Path:
    """A folder of images by class, of several kinds."""
    suffix, mode = rng.choice(
        [("png", "RGB"), ("PNG", "L"), ("jpg", "RGB"), ("tif", "I;16"), ("webp", "RGB"), ("bmp", "P")]
    )
    splits = rng.choice([("",), ("train", "test"), ("train", "val", "test")])
    for split in splits:
        for name in ("cats", "dogs"):
            place = folder / "own" / split / name
            place.mkdir(parents=True)
            for number in range(3):
                image = Image.frombytes(mode, (5, 4), rng.randbytes(20 * {"RGB": 3, "I;16": 2}.get(mode, 1)))
                image.save(place / f"{number}.{suffix}")
    return folder / "own"


def checked(data: Data) -> Data:
    """A data set whose parts fit together, or AssertionError."""
    for split in filter(None, (data.train, data.val, data.test)):
        assert len(split.x) == len(split.y) > 0
        assert split.x.shape[1:] == data.shape
        assert 0 <= int(split.y.min()) <= int(split.y.max()) < data.classes
        assert 0 <= float(split.x.min()) <= float(split.x.max()) <= 1
    return data


FORMATS = {
    "idx": Format(make_idx, lambda root: checked(load_data("mnist", root))),
    "mnist-npz": Format(make_npz, lambda root: checked(load_data("mnist", root))),
    "cifar-binary": Format(make_cifar, lambda root: checked(load_data("cifar10", root))),
    "cifar-tar": Format(make_cifar_tar, lambda root: checked(load_data("cifar10", root))),
    "jpeg-npz": Format(make_jpegs, lambda root: checked(load_data("cifar10", root))),
    "image-folder": Format(make_classes, lambda folder: checked(load_data(image_dir=folder))),
}
