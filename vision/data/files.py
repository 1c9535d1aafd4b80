"""MNIST, Fashion-MNIST and CIFAR-10: where they are looked for, where they are downloaded, and the images they hold.

Looked for below the data root, then in the cache; a file that is in neither is downloaded and its checksum verified. A
user's own files are taken as they are, so that a repacked copy works; their format is checked.

    mnist/mnist.npz, or mnist/ and the four IDX files, plain or .gz
    fashion-mnist/ and the four IDX files
    cifar10/cifar-10-batches-bin/*.bin, cifar10/cifar-10-binary.tar.gz, or cifar10/{train,test}.npz of JPEG files

The folders of other tools are looked into as well: torchvision's MNIST/raw, FashionMNIST/raw and a CIFAR-10 right below
the root, Keras's mnist.npz.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from harness.data import RemoteFile, cache_dir, data_root, fetch
from harness.data.download import sha256
from harness.errors import UserError
from vision.data.decoded import kept_images
from vision.data.formats import (
    Images,
    checked,
    cifar_records,
    decode_jpeg_pack,
    read_cifar_binary,
    read_idx,
    read_mnist_npz,
    read_tar,
)

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
FOLDERS = {  # below a root, where IDX files are looked for; the first is ours
    "mnist": ("mnist", "mnist/raw", "MNIST/raw", "MNIST"),
    "fashion-mnist": ("fashion-mnist", "fashion-mnist/raw", "FashionMNIST/raw", "FashionMNIST", "fashion_mnist"),
}
CIFAR_FOLDERS = ("cifar10", ".", "CIFAR10", "cifar-10")
FASHION_COMMIT = "b2617bb6d3ffa2e429640350f613e3291e10b141"  # of github.com/zalandoresearch/fashion-mnist
MIRRORS = {
    "mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
    "fashion-mnist": (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        f"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/{FASHION_COMMIT}/data/fashion",
    ),
}
CHECKSUMS = {  # sha256 and bytes of IDX_FILES compressed by gzip, as published
    "mnist": (
        ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
        ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
        ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
        ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
    ),
    "fashion-mnist": (
        ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
        ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
        ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
        ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
    ),
}
CIFAR_ARCHIVE = RemoteFile(
    path="cifar10/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    size=170_052_171,
    urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
)
CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")  # the last is the test set
CIFAR_PICKLES = ("cifar-10-batches-py", "cifar-10-python.tar.gz")


def read_mnist(data_dir: Path | None) -> tuple[Images, Images]:
    """Training and test images of MNIST.

    Raises:
        UserError: a file is damaged, or there is neither a copy nor a network.
    """
    for name in ("mnist/mnist.npz", "mnist.npz"):
        if (path := data_root(data_dir) / name).is_file():
            return read_mnist_npz(path)
    what = "MNIST (mnist/mnist.npz, or its four IDX files in mnist or MNIST/raw)"
    return _read_idx_files("mnist", what, data_dir)


def read_fashion_mnist(data_dir: Path | None) -> tuple[Images, Images]:
    """Training and test images of Fashion-MNIST; errors as for `read_mnist`."""
    what = "Fashion-MNIST (its four IDX files in fashion-mnist or FashionMNIST/raw)"
    return _read_idx_files("fashion-mnist", what, data_dir)


def read_cifar10(data_dir: Path | None) -> tuple[Images, Images]:
    """Training and test images of CIFAR-10; those packed as JPEG are sorted by class, and slightly changed.

    Raises:
        UserError: a file is damaged, or there is neither a copy nor a network; the version of pickles is not read,
            because a pickle can run code.
    """
    for folder in (root / name for root in _roots(data_dir) for name in CIFAR_FOLDERS):
        if found := _cifar10_in(folder):
            return found
    return _read_archive(_fetch_archive(data_dir))


def _cifar10_in(folder: Path) -> tuple[Images, Images] | None:
    """Training and test images of CIFAR-10 in any of its forms; None if `folder` has none of them."""
    if _all_there(batches := [folder / CIFAR_FOLDER / name for name in CIFAR_BATCHES]):
        parts = [read_cifar_binary(path) for path in batches]
        return _joined(parts[:-1]), parts[-1]
    if (archive := folder / Path(CIFAR_ARCHIVE.path).name).is_file():
        return _read_archive(archive)
    if folder.name == "cifar10" and _all_there(packs := [folder / "train.npz", folder / "test.npz"]):
        train, test = (kept_images(f"jpeg-{sha256(path)}", partial(decode_jpeg_pack, path)) for path in packs)
        return train, test
    return None


def idx_files(folder: str) -> list[RemoteFile]:
    """The four files of "mnist" or "fashion-mnist", in the order of `IDX_FILES`."""
    return [
        RemoteFile(f"{folder}/{name}.gz", digest, size, tuple(f"{mirror}/{name}.gz" for mirror in MIRRORS[folder]))
        for name, (digest, size) in zip(IDX_FILES, CHECKSUMS[folder], strict=True)
    ]


def _roots(data_dir: Path | None) -> Iterator[Path]:
    """Where to look; the cache is not asked for, and need not be writable, where the first has the files."""
    yield data_root(data_dir)
    yield cache_dir() / "data"


def _read_idx_files(folder: str, what: str, data_dir: Path | None) -> tuple[Images, Images]:
    """Training and test images of four IDX files, each from wherever it is; the others are downloaded."""
    found = [_find(folder, name, data_dir) for name in IDX_FILES]
    missing = [file for file, path in zip(idx_files(folder), found, strict=True) if path is None]
    fetched = iter(fetch(missing, data_root(data_dir), what) if missing else [])
    paths = [path or next(fetched) for path in found]
    images = [read_idx(path, axes=3)[:, None] for path in paths[::2]]
    labels = [read_idx(path, axes=1) for path in paths[1::2]]
    train, test = (checked(*parts) for parts in zip(paths[1::2], images, labels, strict=True))
    return train, test


def _find(folder: str, name: str, data_dir: Path | None) -> Path | None:
    """An IDX file under any of its usual names; None if there is none."""
    spellings = [f"{stem}{end}" for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    folders = (root / place for root in _roots(data_dir) for place in FOLDERS[folder])
    candidates = (place / spelling for place in folders for spelling in spellings)
    return next((path for path in candidates if path.is_file()), None)


def _all_there(paths: Sequence[Path]) -> bool:
    """Whether all files of a folder exist; none of them is no error, some of them is one."""
    missing = [path.name for path in paths if not path.is_file()]
    if missing and len(missing) < len(paths):
        raise UserError(
            f"{paths[0].parent} is incomplete: it lacks {', '.join(missing)}. Add what is missing, or remove the rest "
            "to have the published files downloaded."
        )
    return not missing


def _fetch_archive(data_dir: Path | None) -> Path:
    """The published archive, downloaded."""
    root = data_root(data_dir)
    what = f"CIFAR-10 (binary, in cifar10/{CIFAR_FOLDER}, or JPEG files in cifar10/train.npz)"
    try:
        return fetch([CIFAR_ARCHIVE], root, what)[0]
    except UserError as error:
        places = (root / folder / name for folder in CIFAR_FOLDERS for name in CIFAR_PICKLES)
        pickles = [path for path in places if path.exists()]
        if not pickles:
            raise
        raise UserError(
            f"{pickles[0]} is the version of CIFAR-10 for Python, which is not read: it consists of pickles, and a "
            f"pickle can run code. {error}"
        ) from error


def _read_archive(path: Path) -> tuple[Images, Images]:
    """Images of the published archive; they are kept, because it takes seconds to decompress."""
    digest = sha256(path)
    train = kept_images(f"train-{digest}", partial(_archive_images, path, CIFAR_BATCHES[:-1]))
    return train, kept_images(f"test-{digest}", partial(_archive_images, path, CIFAR_BATCHES[-1:]))


def _archive_images(path: Path, names: Sequence[str]) -> Images:
    """The images of some files of the archive."""
    contents = read_tar(path, [f"{CIFAR_FOLDER}/{name}" for name in names])
    return _joined([cifar_records(content, path) for content in contents])


def _joined(parts: Sequence[Images]) -> Images:
    """All images in one array."""
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])
