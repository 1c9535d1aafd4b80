"""Data sets by name: where they are found, how they are prepared, and in which batches they come."""

import functools
import gzip
import hashlib
import http.server
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from tests.vision.image_files import (
    IDX_NAMES,
    cifar_files,
    idx,
    jpeg,
    random_images,
    write_idx_set,
    write_pack,
    write_tar,
)
from vision import formats, published
from vision.data import Split, load_data


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def offline(monkeypatch):
    """No mirror has anything."""
    monkeypatch.setattr(published, "MIRRORS", {"mnist": (), "fashion-mnist": ()})
    monkeypatch.setattr(published, "CIFAR_ARCHIVE", replace(published.CIFAR_ARCHIVE, urls=()))


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


def rows_of(split):
    return sorted(split.x.flatten(1).tolist())


# Names and places


def test_an_unknown_data_set_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match=r"--dataset svhn.*digits, mnist, fashion-mnist, cifar10, drtp-regression"):
        load_data("svhn")


def test_synthetic_is_another_name_of_the_digits_which_need_no_folder(tmp_path):
    digits, synthetic = load_data(), load_data("synthetic", tmp_path / "nowhere")
    assert digits.name == synthetic.name == "digits"
    assert torch.equal(digits.train.x, synthetic.train.x)
    assert (digits.classes, digits.outputs, digits.shape, digits.val) == (10, 10, (1, 8, 8), None)


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
    monkeypatch.setattr(published, "MIRRORS", {"mnist": (f"{address}/not-here", address)})
    monkeypatch.setattr(published, "CHECKSUMS", {"mnist": checksums})
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
    monkeypatch.setattr(published, "MIRRORS", {"mnist": (address,)})
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
    files = [file for name in ("mnist", "fashion-mnist") for file in published.idx_files(name)]
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


def write_cifar_folder(root):
    for name, content in cifar_files().items():
        path = root / "cifar10" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


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
    remote = replace(published.CIFAR_ARCHIVE, sha256=digest, size=size, urls=(f"{address}/cifar.tar.gz",))
    monkeypatch.setattr(published, "CIFAR_ARCHIVE", remote)
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
    monkeypatch.setattr(published, "decode_jpeg_pack", lambda path: calls.append(path.name) or whole(path))
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


# Preparation


def test_normalised_training_images_have_mean_0_and_deviation_1_by_channel(root):
    write_cifar_folder(root)
    plain, data = load_data("cifar10", root), load_data("cifar10", root, normalise=True)
    pixels = plain.train.x.numpy().astype(np.float64)
    mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    for split in ("train", "test"):
        raw = getattr(plain, split).x.numpy()
        expected = (raw - mean[:, None, None]) / std[:, None, None]
        np.testing.assert_allclose(getattr(data, split).x.numpy(), expected, atol=1e-5)


def test_vectors_are_normalised_by_feature():
    x = load_data("drtp-classification", normalise=True).train.x.double()
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(256).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(dim=0, correction=0), torch.ones(256).double(), atol=1e-4, rtol=0)


def test_a_constant_channel_stays_finite(root):
    write_pack(root / "cifar10" / "train.npz", [jpeg((77, 0, 10)), jpeg((77, 0, 200))], [0, 1])
    write_pack(root / "cifar10" / "test.npz", [jpeg((77, 0, 10))], [0])
    x = load_data("cifar10", root, normalise=True).train.x
    assert x.isfinite().all()
    assert x[:, 1].abs().max() < 1e-5


def test_padding_frames_images_in_black_before_they_are_normalised(root):
    x, *_ = write_idx_set(root / "mnist")  # 6 x 4
    data = load_data("mnist", root, pad_to=9)
    assert data.shape == (1, 9, 9)
    assert data.test.x.shape[1:] == (1, 9, 9)
    torch.testing.assert_close(data.train.x[:, 0, 1:7, 2:6], torch.tensor(x / 255).float())
    assert data.train.x.sum().item() == pytest.approx(x.sum() / 255, rel=1e-5)
    black = load_data("mnist", root, pad_to=9, normalise=True).train.x[0, 0, 0, 0].item()
    assert black == pytest.approx(-x.mean() / x.std(), rel=1e-4)


@pytest.mark.parametrize(("name", "size"), [("digits", 7), ("drtp-regression", 32)])
def test_padding_that_cannot_be_done_is_an_error(name, size):
    with pytest.raises(UserError, match=f"pad_to {size}: the samples of {name} are"):
        load_data(name, pad_to=size)


def test_held_out_rows_leave_the_training_set_and_follow_the_seed():
    whole, data = load_data(), load_data(hold_out=300, seed=1)
    assert (len(data.train), len(data.val), len(data.test)) == (1137, 300, 360)
    both = Split(torch.cat([data.train.x, data.val.x]), torch.cat([data.train.y, data.val.y]))
    assert rows_of(both) == rows_of(whole.train)
    assert torch.equal(load_data(hold_out=300, seed=1).val.x, data.val.x)
    assert not torch.equal(load_data(hold_out=300, seed=2).val.x, data.val.x)
    assert torch.equal(data.test.x, whole.test.x)


def test_rows_are_held_out_of_all_classes_even_if_the_files_are_sorted(root):
    labels = np.repeat(np.arange(10, dtype=np.uint8), 30)
    arrays = [random_images(300, 2, 2)[0], labels, *random_images(3, 2, 2)]
    (root / "mnist").mkdir()
    np.savez(root / "mnist" / "mnist.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))
    data = load_data("mnist", root, hold_out=100)
    assert torch.bincount(data.val.y, minlength=10).min() >= 3
    for split in (data.train, data.val):
        for image, label in zip(split.x[:5], split.y[:5], strict=True):
            row = (arrays[0] == (image[0] * 255).round().numpy()).all(axis=(1, 2))
            assert labels[row].tolist() == [label.item()]


def test_holding_out_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_data(hold_out=10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("hold_out", [-1, 1437])
def test_holding_out_nothing_or_everything_that_there_is_is_an_error(hold_out):
    with pytest.raises(UserError, match=f"hold_out is {hold_out}; of 1437 training samples, 0 to 1436"):
        load_data(hold_out=hold_out)


# Batches


@pytest.fixture
def split():
    """Image i has the pixels i, i + 1/4, i + 1/2 in its one row."""
    x = torch.arange(11.0)[:, None, None, None] + torch.tensor([0, 0.25, 0.5]).view(1, 1, 1, 3)
    return Split(x, torch.arange(11))


def test_batches_hold_every_sample_once_with_its_target(split):
    torch.manual_seed(0)
    parts = list(split.batches(4))
    assert [len(y) for _, y in parts] == [4, 4, 3]
    y = torch.cat([y for _, y in parts])
    assert sorted(y.tolist()) == list(range(11))
    assert y.tolist() != list(range(11))
    assert torch.equal(torch.cat([x for x, _ in parts]), split.x[y])
    assert all(x.is_contiguous() for x, _ in parts)


def test_without_shuffling_batches_are_views_in_order(split):
    parts = list(split.batches(4, shuffle=False))
    assert torch.cat([y for _, y in parts]).tolist() == list(range(11))
    assert parts[1][0].data_ptr() == split.x[4:].data_ptr()


def test_the_last_batch_is_left_out_if_it_is_smaller(split):
    assert [len(y) for _, y in split.batches(4, drop_last=True)] == [4, 4]
    assert [len(y) for _, y in split.batches(11, drop_last=True)] == [11]
    with pytest.raises(UserError, match="--batch 12 leaves no whole batch of 11 samples"):
        list(split.batches(12, drop_last=True))


def test_the_order_follows_the_global_generator(split):
    def order():
        return torch.cat([y for _, y in split.batches(4)]).tolist()

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = order(), order()
    assert first != second
    torch.set_rng_state(state)
    assert [order(), order()] == [first, second]


def test_flipping_mirrors_half_of_the_images_left_to_right():
    x = torch.arange(24.0).reshape(1, 2, 3, 4).repeat(2000, 1, 1, 1)
    torch.manual_seed(0)
    found = torch.cat([x for x, _ in Split(x, torch.zeros(2000)).batches(300, flip=True)])
    mirrored = x[0].numpy()[:, :, ::-1]
    same = [np.array_equal(image, x[0]) for image in found.numpy()]
    other = [np.array_equal(image, mirrored) for image in found.numpy()]
    assert all(a != b for a, b in zip(same, other, strict=True))
    assert 900 < sum(other) < 1100


def test_vectors_cannot_be_mirrored():
    with pytest.raises(UserError, match="flip mirrors images"):
        next(Split(torch.zeros(3, 5), torch.zeros(3)).batches(2, flip=True))


def test_data_and_splits_move_as_a_whole():
    data = load_data(hold_out=10).to("meta")
    assert {part.device.type for s in (data.train, data.val, data.test) for part in (s.x, s.y)} == {"meta"}
    assert load_data().to("cpu").val is None


# The real images

MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.data
def test_mnist_is_the_published_set(data_dir):
    data = load_data("mnist", data_dir)
    assert (data.shape, len(data.test), data.classes) == ((1, 28, 28), 10_000, 10)
    assert torch.bincount(data.train.y).tolist() == MNIST_TRAIN
    assert data.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert (data.train.x.min().item(), data.train.x.max().item()) == (0.0, 1.0)
    assert data.train.x.double().mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert data.train.x.double().std().item() == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.data
def test_an_epoch_of_bare_batches_of_mnist_takes_no_time(data_dir):
    data, best = load_data("mnist", data_dir), 9.0
    for _ in range(3):
        start = time.process_time()
        for _ in data.train.batches(100):
            pass
        best = min(best, time.process_time() - start)
    assert best < 0.25


@pytest.mark.data
def test_cifar10_is_the_packed_set(data_dir, real_cache):
    data = load_data("cifar10", data_dir)
    assert (data.shape, data.classes) == ((3, 32, 32), 10)
    assert torch.bincount(data.train.y).tolist() == [5000] * 10
    assert torch.bincount(data.test.y).tolist() == [1000] * 10
    assert data.train.x.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.4913, 0.4821, 0.4465], abs=1e-4)
    assert data.train.x.flatten(2).std(dim=(0, 2)).tolist() == pytest.approx([0.2452, 0.2428, 0.2606], abs=1e-4)
    assert len(list((real_cache / "vision").iterdir())) == 2


@pytest.mark.data
def test_the_data_root_is_left_as_it_was(data_dir):
    before = sorted(str(path) for name in ("mnist", "cifar10") for path in (data_dir / name).rglob("*"))
    load_data("mnist", data_dir, normalise=True, pad_to=32, hold_out=5000)
    assert sorted(str(path) for name in ("mnist", "cifar10") for path in (data_dir / name).rglob("*")) == before
