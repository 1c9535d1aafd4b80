"""Small image sets in the published formats, written byte by byte."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

IDX_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    """An array of bytes as an IDX file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def random_images(count: int, *shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bytes ``[count, *shape]``, and their classes, which run through 0 to 9."""
    generator = np.random.default_rng([seed, count])
    return generator.integers(0, 256, (count, *shape), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)


def write_idx_set(folder: Path, train: int = 30, test: int = 20, dot: bool = False, packed: bool = True) -> list:
    """Four IDX files of 6 x 4 pixels; returns images and labels for training, then for tests."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [*random_images(train, 6, 4), *random_images(test, 6, 4, seed=1)]
    for name, array in zip(IDX_NAMES, arrays, strict=True):
        spelling = name.replace("-idx", ".idx") if dot else name
        if packed:
            (folder / f"{spelling}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / spelling).write_bytes(idx(array))
    return arrays


def cifar_batch(number: int, count: int = 4) -> bytes:
    """A binary CIFAR-10 file; every pixel of image i of batch n is 40 n + 10 i + channel."""
    records = [bytes([i]) + b"".join(bytes([40 * number + 10 * i + c]) * 1024 for c in range(3)) for i in range(count)]
    return b"".join(records)


def cifar_files() -> dict[str, bytes]:
    """The six files of the binary CIFAR-10, four images each; batch 0 is the test set."""
    numbers = {f"data_batch_{n}.bin": n for n in range(1, 6)} | {"test_batch.bin": 0}
    return {f"cifar-10-batches-bin/{name}": cifar_batch(n) for name, n in numbers.items()}


def write_cifar_folder(root: Path) -> None:
    """The same below a data root."""
    for name, content in cifar_files().items():
        path = root / "cifar10" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    """A tar archive compressed by gzip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def jpeg(colour: tuple[int, int, int], size: int = 32) -> bytes:
    """A JPEG file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write_pack(path: Path, files: list[bytes], labels: list[int]) -> None:
    """JPEG files packed into an npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(path, bytes=np.frombuffer(b"".join(files), np.uint8), offsets=offsets, labels=np.array(labels, np.uint8))
