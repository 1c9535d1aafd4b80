"""IDX, npz, binary CIFAR-10 and packed JPEG files: what they hold, and how damage is named."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest

from harness.errors import UserError
from tests.vision.data.image_files import cifar_batch, idx, jpeg, random_images, write_pack, write_tar
from vision.data.formats import checked, decode_jpeg_pack, read_cifar_binary, read_idx, read_mnist_npz, read_tar


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_files_hold_the_array_with_its_axes_in_order(path, pack):
    images, _ = random_images(3, 5, 2)
    path.write_bytes(pack(idx(images)))
    np.testing.assert_array_equal(read_idx(path, axes=3), images)


def test_idx_lengths_are_read_high_byte_first(path):
    path.write_bytes(bytes.fromhex("0000080100000102") + bytes(258))
    assert read_idx(path, axes=1).shape == (258,)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (idx(np.zeros((4, 3, 2), np.uint8))[:-1], r"cut short.*promises 4 entries, 24 bytes, and 23 follow"),
        (idx(np.zeros((4, 3, 2), np.uint8)) + b"\0", r"too long.*24 bytes, and 25 follow"),
        (idx(np.zeros(24, np.uint8)), "begins with 00000801 where IDX has 00000803"),
        (struct.pack(">HBB3I", 0, 13, 3, 1, 1, 1) + bytes(4), "begins with 00000d03 where"),
        (b"<!DOCTYPE html>", "begins with 3c21444f where"),
        (b"", "begins with nothing where"),
        (idx(np.zeros((4, 3, 2), np.uint8))[:9], "its header has 9 of 16 bytes"),
        (gzip.compress(idx(random_images(40, 3, 2)[0]), mtime=0)[:-60], "cut short or damaged: it does not decompress"),
        (gzip.compress(idx(random_images(40, 3, 2)[0]), mtime=0)[:-8] + bytes(8), "damaged: it does not decompress"),
    ],
    ids=["short", "long", "labels", "float", "html", "empty", "header", "gzip-short", "gzip-checksum"],
)
def test_a_damaged_idx_file_is_named_with_the_cause_and_the_way_out(path, content, cause):
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"(?s){path}.*{cause}.*Replace it, or remove it"):
        read_idx(path, axes=3)


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path} cannot be read \(Is a directory\)"):
        read_idx(tmp_path, axes=3)


KEYS = {
    "own": ("train_images", "train_labels", "test_images", "test_labels"),
    "keras": ("x_train", "y_train", "x_test", "y_test"),
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_mnist_is_read_under_either_spelling_of_its_keys(path, keys):
    arrays = [*random_images(6, 5, 4), *random_images(3, 5, 4)]
    with open(path, "wb") as file:
        np.savez_compressed(file, **dict(zip(keys, arrays, strict=True)))
    (x, y), (x_test, y_test) = read_mnist_npz(path)
    np.testing.assert_array_equal(x, arrays[0].reshape(6, 1, 5, 4))
    assert (y.tolist(), y.dtype) == ([0, 1, 2, 3, 4, 5], np.int64)
    np.testing.assert_array_equal(x_test, arrays[2].reshape(3, 1, 5, 4))
    assert y_test.tolist() == [0, 1, 2]


@pytest.mark.parametrize("axis", [1, 3], ids=["first", "last"])
def test_grey_images_with_a_channel_axis_and_labels_in_a_column_are_what_they_are_without(path, axis):
    x, y = random_images(6, 5, 4)
    write_npz(path, train_images=np.expand_dims(x, axis), train_labels=y[:, None])
    (images, labels), _ = read_mnist_npz(path)
    np.testing.assert_array_equal(images[:, 0], x)
    assert (images.shape, labels.tolist()) == ((6, 1, 5, 4), y.tolist())


def test_an_array_whose_header_says_less_than_there_is_is_named(path):
    """Its checksum covers what lies behind, which numpy alone does not read."""
    write_npz(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'shape': (9, 5, 4)", b"'shape': (3, 5, 4)"))
    assert path.read_bytes() != content
    with pytest.raises(UserError, match=rf"{path} cannot be read as an npz file"):
        read_mnist_npz(path)


def write_npz(path, **changes):
    arrays = dict(zip(KEYS["own"], [*random_images(9, 5, 4), *random_images(3, 5, 4)], strict=True)) | changes
    with open(path, "wb") as file:
        np.savez(file, **{key: array for key, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"test_labels": None}, "lacks the keys train_images.* or x_train.*it has train_images, train_labels"),
        ({"train_labels": np.arange(8)}, "9 images and 8 labels"),
        ({"train_labels": np.array([0, 1, 10] * 3)}, "label 2 is 10, and classes are 0 to 9"),
        ({"train_labels": np.array([0, 1, -1] * 3)}, "label 2 is -1"),
        ({"train_labels": np.zeros(9, np.float32)}, "holds labels as float32, where they are whole numbers"),
        (
            {"train_labels": np.zeros((9, 10), np.int64)},
            r"holds labels of shape 9x10, where they are \[N\] or \[N, 1\]",
        ),
        ({"train_images": np.zeros((9, 5, 4), np.float32)}, "holds images as float32, where they are bytes"),
        ({"train_images": np.zeros((9, 20), np.uint8)}, r"of shape 9x20, where grey ones are \[N, H, W\]"),
        ({"train_images": np.zeros((9, 5, 4, 2), np.uint8)}, r"of shape 9x5x4x2, where grey ones are \[N, H, W\]"),
        ({"test_images": np.zeros((0, 5, 4), np.uint8), "test_labels": np.zeros(0, np.uint8)}, "holds no images"),
        ({"train_labels": np.array([{}] * 9)}, "cannot be read as an npz file.*allow_pickle"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_an_npz_that_does_not_hold_mnist_is_named_with_the_cause(path, changes, cause):
    write_npz(path, **changes)
    with pytest.raises(UserError, match=rf"(?s){path}.*{cause}.*Replace it, or remove it"):
        read_mnist_npz(path)


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "npy", "pickle"])
def test_a_damaged_npz_is_named(path, damage):
    write_npz(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"descr") + 200] ^= 255
    npy = io.BytesIO()
    np.save(npy, np.zeros(3))
    contents = {"cut": content[: len(content) // 2], "changed": content, "empty": b"", "npy": npy.getvalue()} | {
        "pickle": pickle.dumps([1, 2])
    }
    path.write_bytes(contents[damage])
    with pytest.raises(UserError, match=rf"{path} (cannot be read as an npz file|lacks the keys)"):
        read_mnist_npz(path)


def test_binary_cifar_holds_a_class_then_three_planes_per_image(path):
    path.write_bytes(cifar_batch(2, count=3))
    x, y = read_cifar_binary(path)
    assert (x.shape, x.dtype, y.tolist()) == ((3, 3, 32, 32), np.uint8, [0, 1, 2])
    for image in range(3):
        for channel in range(3):
            assert (x[image, channel] == 80 + 10 * image + channel).all()


def test_pixels_of_binary_cifar_run_along_rows(path):
    plane = bytes(range(256)) * 4
    path.write_bytes(b"\x07" + plane * 3)
    x, _ = read_cifar_binary(path)
    assert x[0, 1, 2].tolist() == list(range(64, 96))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (cifar_batch(1)[:-1], "cut short: 12,291 bytes are no multiple of an image's 3,073"),
        (b"", "cut short: 0 bytes"),
        (b"\x0a" + bytes(3072), "label 0 is 10"),
    ],
)
def test_a_damaged_cifar_file_is_named(path, content, cause):
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path}.*{cause}"):
        read_cifar_binary(path)


def test_only_the_wanted_members_of_an_archive_are_read_and_nothing_is_unpacked(tmp_path, path, monkeypatch):
    write_tar(path, {"../../evil": b"x", "a/one": b"1", "a/two": b"22", "/evil": b"y"})
    monkeypatch.chdir(tmp_path)
    assert read_tar(path, ["a/two", "a/one"]) == [b"22", b"1"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_link_is_no_member(path):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("a/one")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(member)
    with pytest.raises(UserError, match=rf"{path} is another archive: it has no file a/one"):
        read_tar(path, ["a/one"])


@pytest.mark.parametrize("keep", [0, 40, -200], ids=["empty", "start", "end"])
def test_a_damaged_archive_is_named(path, keep):
    write_tar(path, {"a/one": np.random.default_rng(0).bytes(5000)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"{path} (cannot be read as a tar archive|is another archive)"):
        read_tar(path, ["a/one"])


def test_packed_jpeg_files_are_decoded_by_channel(tmp_path):
    path = tmp_path / "train.npz"
    write_pack(path, [jpeg((200, 100, 50)), jpeg((0, 0, 255))], [3, 9])
    x, y = decode_jpeg_pack(path)
    assert (x.shape, x.dtype, y.tolist()) == ((2, 3, 32, 32), np.uint8, [3, 9])
    colours = x.reshape(2, 3, -1).astype(int)
    assert np.abs(colours - np.array([[[200], [100], [50]], [[0], [0], [255]]])).max() <= 3  # the format loses some


def test_a_grey_jpeg_file_becomes_one_of_three_channels(tmp_path):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (8, 8), 77).save(buffer, "JPEG")
    write_pack(tmp_path / "p.npz", [buffer.getvalue()], [0])
    assert decode_jpeg_pack(tmp_path / "p.npz")[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ([jpeg((1, 2, 3)), b"no image"], "its image 1 is no JPEG file"),
        ([jpeg((1, 2, 3)), jpeg((1, 2, 3))[:-300]], "its image 1 is no JPEG file"),
        ([jpeg((1, 2, 3)), jpeg((1, 2, 3), size=16)], "holds images of several sizes"),
        ([], "holds no images"),
    ],
    ids=["text", "cut", "sizes", "none"],
)
def test_a_pack_with_a_damaged_image_is_named(tmp_path, files, cause):
    path = tmp_path / "train.npz"
    write_pack(path, files, [0] * len(files))
    with pytest.raises(UserError, match=f"{path}.*{cause}"):
        decode_jpeg_pack(path)


@pytest.mark.parametrize("offsets", [[0, 5], [1, 10], [0, 8, 4, 10], []])
def test_offsets_that_do_not_divide_the_bytes_are_an_error(tmp_path, offsets):
    path = tmp_path / "train.npz"
    np.savez(path, bytes=np.zeros(10, np.uint8), offsets=np.array(offsets, np.int64), labels=np.zeros(1, np.uint8))
    with pytest.raises(UserError, match="its offsets do not divide its bytes"):
        decode_jpeg_pack(path)


def test_classes_become_int64(path):
    assert checked(path, np.zeros((2, 1, 3, 3), np.uint8), np.array([9, 0], np.uint8))[1].dtype == np.int64
