"""Published image sets: where their files are found, how they are downloaded, and what is decoded only once."""

import functools
import gzip
import hashlib
import http.server
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from tests.vision.data.image_files import (
    IDX_NAMES,
    cifar_files,
    idx,
    jpeg,
    random_images,
    write_cifar_folder,
    write_idx_set,
    write_pack,
    write_tar,
)
from vision.data import files as published_files
from vision.data import formats
from vision.data.sets import load_data


@pytest.fixture
def offline(monkeypatch):
    """No mirror has anything."""
    monkeypatch.setattr(published_files, "MIRRORS", {"mnist": (), "fashion-mnist": ()})
    monkeypatch.setattr(published_files, "CIFAR_ARCHIVE", replace(published_files.CIFAR_ARCHIVE, urls=()))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder, and the address where its files can be had."""
    folder = tmp_path / "mirror"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("dot", [False, True], ids=["dash", "dot"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_found_under_their_usual_names(root, name, dot, packed):
    x, y, x_test, y_test = write_idx_set(root / name, dot=dot, packed=packed)
    data = load_data(name, root)
    torch.testing.assert_close(data.train.x, torch.tensor(x[:, None] / 255, dtype=torch.float32))
    torch.testing.assert_close(data.test.x, torch.tensor(x_test[:, None] / 255, dtype=torch.float32))
    assert (data.train.y.tolist(), data.test.y.tolist()) == (y.tolist(), y_test.tolist())
    assert (data.train.y.dtype, data.shape, data.outputs, len(data.test)) == (torch.int64, (1, 6, 4), 10, 20)


@pytest.mark.parametrize(("name", "place"), [("mnist", "MNIST/raw"), ("fashion-mnist", "FashionMNIST/raw")])
def test_the_folders_of_torchvision_are_found(root, name, place, offline):
    x, _, _, y_test = write_idx_set(root / place, packed=False)
    data = load_data(name, root)
    torch.testing.assert_close(data.train.x[:, 0], torch.tensor(x / 255, dtype=torch.float32))
    assert data.test.y.tolist() == y_test.tolist()


def test_one_set_is_not_taken_for_the_other(root, offline):
    write_idx_set(root / "FashionMNIST" / "raw")
    with pytest.raises(UserError, match=r"MNIST .* is not there"):
        load_data("mnist", root)


def test_a_binary_cifar10_right_below_the_root_is_found(root, offline):
    write_cifar_folder(root)
    (root / "cifar10" / "cifar-10-batches-bin").rename(root / "cifar-10-batches-bin")
    assert load_data("cifar10", root).train.y.tolist() == [0, 1, 2, 3] * 5


def test_torchvisions_cifar10_is_named_and_not_opened(root, offline):
    (root / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match=r"cifar-10-batches-py is the version .* a pickle can run code"):
        load_data("cifar10", root)


def test_the_npz_of_mnist_is_read_before_idx_files(root):
    write_idx_set(root / "mnist")
    arrays = [*random_images(8, 5, 5), *random_images(3, 5, 5)]
    np.savez(root / "mnist" / "mnist.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))
    assert load_data("mnist", root).shape == (1, 5, 5)


def test_a_missing_idx_file_is_downloaded_checked_and_kept_in_the_cache(root, mirror, cache, monkeypatch):
    folder, address = mirror
    write_idx_set(folder)
    missing = IDX_NAMES[2]
    content = (folder / f"{missing}.gz").read_bytes()
    checksums = [(hashlib.sha256(content).hexdigest(), len(content))] * 4
    monkeypatch.setattr(published_files, "MIRRORS", {"mnist": (f"{address}/not-here", address)})
    monkeypatch.setattr(published_files, "CHECKSUMS", {"mnist": checksums})
    _, _, x_test, _ = write_idx_set(root / "mnist")
    (root / "mnist" / f"{missing}.gz").unlink()
    for _ in range(2):  # the second time from the cache
        torch.testing.assert_close(load_data("mnist", root).test.x[:, 0], torch.tensor(x_test / 255).float())
        (folder / f"{missing}.gz").unlink(missing_ok=True)
    assert (cache / "data" / "mnist" / f"{missing}.gz").read_bytes() == content
    assert len(list((root / "mnist").iterdir())) == 3


def test_a_download_that_is_not_the_published_file_is_not_used(root, mirror, monkeypatch):
    folder, address = mirror
    for name in IDX_NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
    monkeypatch.setattr(published_files, "MIRRORS", {"mnist": (address,)})
    with pytest.raises(UserError, match=r"MNIST .* is not there.*(where the published file has|another sha256)"):
        load_data("mnist", root)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_a_set_that_is_nowhere_says_what_was_looked_for_and_where_and_what_needs_nothing(root, cache, name, offline):
    first = {"mnist": "mnist/train-images-idx3-ubyte.gz", "cifar10": "cifar10/cifar-10-binary.tar.gz"}
    wanted = first.get(name, f"{name}/train-images-idx3-ubyte.gz")
    with pytest.raises(UserError, match=rf"looked for {wanted}.* below {root} and {cache}/data.*--dataset synthetic"):
        load_data(name, root)
    assert not list(root.iterdir())


def test_every_published_idx_file_has_mirrors_and_its_own_checksum():
    files = [file for name in ("mnist", "fashion-mnist") for file in published_files.idx_files(name)]
    assert [file.path for file in files[:4]] == [f"mnist/{name}.gz" for name in IDX_NAMES]
    assert len({file.sha256 for file in files}) == 8
    assert all(len(file.sha256) == 64 and file.size > 4000 and len(file.urls) == 2 for file in files)
    assert all(url.endswith(file.path.split("/")[1]) for file in files for url in file.urls)


# Damage that shows only when files meet


def test_images_and_labels_of_different_length_are_an_error_that_names_the_file(root):
    write_idx_set(root / "mnist")
    path = root / "mnist" / f"{IDX_NAMES[3]}.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(19, np.uint8))))
    with pytest.raises(UserError, match=rf"{path} does not fit: there are 20 images and 19 labels"):
        load_data("mnist", root)


def test_test_images_of_another_size_are_an_error(root):
    write_idx_set(root / "mnist")
    (root / "mnist" / f"{IDX_NAMES[2]}.gz").write_bytes(gzip.compress(idx(random_images(20, 5, 5)[0])))
    with pytest.raises(UserError, match="mnist: training and test images differ in size, 1x6x4 and 1x5x5"):
        load_data("mnist", root)


# CIFAR-10


def first_pixels(split):
    return (split.x[:, :, 0, 0] * 255).round().int().tolist()


EXPECTED = [[40 * n + 10 * i + c for c in range(3)] for n in range(1, 6) for i in range(4)]


def test_binary_cifar_is_read_batch_after_batch(root):
    write_cifar_folder(root)
    data = load_data("cifar10", root)
    assert (data.shape, len(data.train), len(data.test), data.classes) == ((3, 32, 32), 20, 4, 10)
    assert first_pixels(data.train) == EXPECTED
    assert first_pixels(data.test) == [[0, 1, 2], [10, 11, 12], [20, 21, 22], [30, 31, 32]]
    assert data.train.y.tolist() == [0, 1, 2, 3] * 5


def test_the_archive_gives_the_same_images_and_unpacks_nothing(root):
    write_tar(root / "cifar10" / "cifar-10-binary.tar.gz", cifar_files())
    from_archive = load_data("cifar10", root)
    assert [path.name for path in (root / "cifar10").iterdir()] == ["cifar-10-binary.tar.gz"]
    write_cifar_folder(root)
    from_folder = load_data("cifar10", root)
    assert torch.equal(from_archive.train.x, from_folder.train.x)
    assert torch.equal(from_archive.test.y, from_folder.test.y)


def test_the_archive_is_downloaded(root, mirror, monkeypatch):
    folder, address = mirror
    archive = folder / "cifar.tar.gz"
    write_tar(archive, cifar_files())
    digest, size = hashlib.sha256(archive.read_bytes()).hexdigest(), archive.stat().st_size
    remote = replace(published_files.CIFAR_ARCHIVE, sha256=digest, size=size, urls=(f"{address}/cifar.tar.gz",))
    monkeypatch.setattr(published_files, "CIFAR_ARCHIVE", remote)
    assert len(load_data("cifar10", root).train) == 20


def test_an_incomplete_folder_says_what_is_missing(root):
    write_cifar_folder(root)
    (root / "cifar10" / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=r"cifar-10-batches-bin is incomplete: it lacks data_batch_3\.bin"):
        load_data("cifar10", root)


@pytest.mark.parametrize("name", ["cifar-10-batches-py", "cifar-10-python.tar.gz"])
def test_the_version_of_pickles_is_explained_and_not_read(root, offline, name):
    (root / "cifar10" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{name} is the version .* pickles.*cifar-10-binary\.tar\.gz"):
        load_data("cifar10", root)


@pytest.fixture
def packs(root):
    write_pack(root / "cifar10" / "train.npz", [jpeg((60, 120, 180)), jpeg((20, 0, 0)), jpeg((0, 90, 0))], [1, 2, 7])
    write_pack(root / "cifar10" / "test.npz", [jpeg((255, 255, 255))], [4])
    return root


@pytest.fixture
def decoded(monkeypatch):
    """Paths of the packs that were decoded."""
    calls = []
    whole = formats.decode_jpeg_pack
    monkeypatch.setattr(published_files, "decode_jpeg_pack", lambda path: calls.append(path.name) or whole(path))
    return calls


def test_jpeg_packs_are_decoded_once(packs, cache, decoded):
    first, second = load_data("cifar10", packs), load_data("cifar10", packs)
    assert decoded == ["train.npz", "test.npz"]
    assert torch.equal(first.train.x, second.train.x)
    assert (second.train.y.tolist(), second.test.y.tolist()) == ([1, 2, 7], [4])
    assert [path.suffix for path in (cache / "vision").iterdir()] == [".npz"] * 2


def test_a_pack_of_other_content_is_decoded_anew(packs, decoded):
    load_data("cifar10", packs)
    write_pack(packs / "cifar10" / "test.npz", [jpeg((0, 0, 0))], [5])
    assert load_data("cifar10", packs).test.y.tolist() == [5]
    assert decoded == ["train.npz", "test.npz", "test.npz"]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_cache_is_made_anew(packs, cache, decoded, damage):
    first = load_data("cifar10", packs)
    for path in (cache / "vision").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 4] ^= 1  # inside the images
        path.write_bytes({"cut": content[:-30], "changed": content, "empty": b""}[damage])
    again = load_data("cifar10", packs)
    assert len(decoded) == 4
    assert torch.equal(first.train.x, again.train.x)
    load_data("cifar10", packs)
    assert len(decoded) == 4


def test_a_cache_that_cannot_be_written_is_an_error_that_leaves_nothing(packs, cache, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device.*TINYDFA_CACHE"):
        load_data("cifar10", packs)
    assert not list((cache / "vision").iterdir())


def test_one_pack_without_the_other_is_an_error(packs):
    (packs / "cifar10" / "test.npz").unlink()
    with pytest.raises(UserError, match=r"cifar10 is incomplete: it lacks test\.npz"):
        load_data("cifar10", packs)
