"""Images of one's own: how a folder is read, and what of it is refused by name."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import UserError
from harness.options import make
from vision.data.folders import read_folder
from vision.data.sets import load_data
from vision.train import Config, load, train

COLOURS = {"blue": (0, 0, 200), "red": (200, 0, 0), "green": (0, 200, 0)}


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)


def plain(colour: tuple[int, int, int], height: int = 4, width: int = 6) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def classes(folder: Path, counts: dict[str, int]) -> Path:
    """Images of one colour by class."""
    for name, count in counts.items():
        for number in range(count):
            save(folder / name / f"{number}.png", plain(COLOURS[name]))
    return folder


def test_classes_are_numbered_by_name_and_images_keep_their_pixels(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        classes(tmp_path / part, {"red": count, "blue": count})
    found = read_folder(tmp_path)
    assert found.classes == ("blue", "red")
    assert found.train[1].tolist() == [0, 0, 0, 1, 1, 1]
    assert found.test[1].tolist() == [0, 0, 1, 1]
    assert found.train[0].shape == (6, 3, 4, 6)
    assert found.train[0][0, :, 0, 0].tolist() == list(COLOURS["blue"])
    assert found.test[0][3, :, 3, 5].tolist() == list(COLOURS["red"])
    assert found.val is None


def test_a_folder_of_held_out_images_chooses_the_epoch(tmp_path):
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        classes(tmp_path / part, {"red": count, "blue": count})
    data = load_data(image_dir=tmp_path)
    assert data.val is not None
    assert (len(data.train), len(data.val), len(data.test), data.classes) == (6, 2, 4, 2)
    with pytest.raises(UserError, match=r"--hold-out 2: .* has a folder of held-out images"):
        load_data(image_dir=tmp_path, hold_out=2)


@pytest.mark.parametrize("name", ["val", "Valid", "test", "TEST", "Testing"])
def test_one_folder_beside_train_is_for_tests(tmp_path, name):
    classes(tmp_path / "train", {"red": 3, "blue": 3})
    classes(tmp_path / name, {"red": 2, "blue": 1})
    data = load_data(image_dir=tmp_path)
    assert (len(data.train), data.val, len(data.test)) == (6, None, 3)


def test_without_a_split_a_fifth_of_each_class_is_for_tests_the_same_one_every_time(tmp_path):
    for number in range(23):
        save(tmp_path / "a" / f"{number}.png", np.full((3, 3), number, np.uint8))
        save(tmp_path / "b" / f"{number}.png", np.full((3, 3), 100 + number, np.uint8))
    first, again = read_folder(tmp_path), read_folder(tmp_path)
    shades = {name: set(part[0][:, 0, 0, 0].tolist()) for name, part in (("train", first.train), ("test", first.test))}
    assert shades["train"] | shades["test"] == {*range(23), *range(100, 123)}
    assert not shades["train"] & shades["test"]
    assert first.test[1].tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(first.test[0], again.test[0])


def test_images_are_found_at_any_depth_in_any_case_and_what_file_managers_leave_is_passed_over(tmp_path):
    save(tmp_path / "a" / "deep" / "1.PNG", plain((1, 2, 3)))
    save(tmp_path / "a" / "2.JPeG", plain((1, 2, 3)), format="JPEG")
    classes(tmp_path, {"red": 2})
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / "a" / name).write_bytes(b"\0")
    (tmp_path / ".git").mkdir()
    found = read_folder(tmp_path)
    assert (found.classes, len(found.train[0]), len(found.test[0])) == (("a", "red"), 2, 2)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif", "ppm", "gif"])
def test_every_kind_of_file_gives_its_pixels(tmp_path, suffix):
    pixels = plain((10, 20, 30)) if suffix != "webp" else plain((128, 128, 128))
    options = {"lossless": True} if suffix == "webp" else {}
    for name in ("a/1", "a/2", "b/1", "b/2"):
        save(tmp_path / f"{name}.{suffix}", pixels, **options)
    np.testing.assert_array_equal(read_folder(tmp_path).train[0][0], pixels.transpose(2, 0, 1))


def grey(tmp_path: Path, image: Image.Image, suffix: str = "png") -> np.ndarray:
    for name in ("a/1", "a/2", "b/1", "b/2"):
        save(tmp_path / f"{name}.{suffix}", image)
    return read_folder(tmp_path).train[0][0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_its_shades(tmp_path, suffix):
    levels = np.array([[0, 257, 25700], [128, 129, 65535]], np.uint16)
    assert grey(tmp_path, Image.fromarray(levels), suffix).tolist() == [[[0, 1, 100], [0, 1, 255]]]


def test_a_palette_black_and_white_and_an_alpha_that_hides_nothing_are_the_colours_they_show(tmp_path):
    colours = Image.fromarray(plain((200, 0, 0)))
    for number, image in enumerate((colours, colours.quantize(4), colours.convert("RGBA"))):
        save(tmp_path / "a" / f"{number}.png", image)
    for number in range(2):
        save(tmp_path / "b" / f"{number}.png", Image.new("1", (6, 4), 1))
    found = read_folder(tmp_path)
    pixels = {tuple(image[:, 0, 0].tolist()) for image in (*found.train[0], *found.test[0])}
    assert pixels == {(200, 0, 0), (255, 255, 255)}


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    for name in ("a/1", "a/2", "b/1", "b/2"):
        save(tmp_path / f"{name}.png", pixels, exif=exif)
    [image] = read_folder(tmp_path).train[0][0]
    assert image.shape == (6, 4)
    assert np.argwhere(image == 255).tolist() == [[0, 3]]


def test_images_are_cropped_around_the_middle_and_scaled(tmp_path):
    wide = np.zeros((2, 6, 3), np.uint8)
    wide[:, 2:4] = 240  # the middle square
    save(tmp_path / "a" / "1.png", wide)
    save(tmp_path / "a" / "2.png", wide)
    classes(tmp_path, {"red": 2})
    with pytest.raises(UserError, match=r"a/\d\.png is 6x2 and .*red/\d\.png is 6x4\. Give --image-size"):
        read_folder(tmp_path)
    found = read_folder(tmp_path, size=2)
    assert found.train[0].shape == (2, 3, 2, 2)
    assert set(found.train[0][0].flatten().tolist()) == {240}


def broken(tmp_path: Path, name: str, content: bytes | Image.Image | np.ndarray, **options) -> str:
    classes(tmp_path, {"red": 3, "blue": 3})
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        save(tmp_path / name, content, **options)
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    return str(caught.value)


REFUSED = {
    "text": ("red/a.png", b"no image", "cannot be read as an image"),
    "empty": ("red/a.jpg", b"", "cannot be read as an image"),
    "another kind": ("red/a.heic", b"....", r"is none of \.png, \.jpg"),
    "beside": ("a.png", plain((1, 2, 3)), "lies beside the folders of the classes"),
    "transparent": ("red/a.png", Image.new("RGBA", (6, 4), (1, 2, 3, 254)), "transparent pixels"),
    "float": ("red/a.tif", Image.fromarray(np.ones((4, 6), np.float32)), "floating-point numbers"),
    "negative": ("red/a.tif", Image.fromarray(np.full((4, 6), -1, np.int32)), "numbers from -1 to -1"),
}


@pytest.mark.parametrize(("name", "content", "cause"), REFUSED.values(), ids=REFUSED)
def test_what_would_have_to_be_guessed_is_refused_by_name(tmp_path, name, content, cause):
    message = broken(tmp_path, name, content)
    assert re.search(cause, message)


def test_a_file_of_several_pictures_is_refused(tmp_path):
    frames = [Image.fromarray(plain((shade, 0, 0))) for shade in (0, 90, 180)]
    message = broken(tmp_path, "red/a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert "holds several pictures" in message


def test_layouts_that_are_none_are_told_the_one_that_is(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder\. Give a folder with a folder of images for every"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has 0 classes\. Give a folder with"):
        read_folder(tmp_path)
    classes(tmp_path, {"red": 3})
    with pytest.raises(UserError, match=r"has 1 classes\. Give a folder with"):
        read_folder(tmp_path)
    (tmp_path / "blue").mkdir()
    with pytest.raises(UserError, match=r"the class .*blue has no images"):
        read_folder(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"has blue, red, train: there should be one to train on and one for tests"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "names", [("val", "test"), ("Training",), ("red", "blue", "Testing"), ("train", "Training", "test")]
)
def test_folders_of_a_split_are_never_classes(tmp_path, names):
    for name in names:
        classes(tmp_path / name, {"red": 3, "blue": 3})
    with pytest.raises(UserError, match="there should be one to train on and one for tests"):
        read_folder(tmp_path)


def test_training_and_testing_are_names_of_splits(tmp_path):
    for name, count in (("Training", 3), ("Testing", 1)):
        classes(tmp_path / name, {"red": count, "blue": count})
    found = read_folder(tmp_path)
    assert found.classes == ("blue", "red")
    assert (len(found.train[1]), len(found.test[1])) == (6, 2)


def test_a_linked_folder_is_entered_once(tmp_path):
    classes(tmp_path / "photos", {"red": 3, "blue": 3})
    save(tmp_path / "more" / "a.png", plain((1, 2, 3)))
    (tmp_path / "photos" / "red" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "photos" / "red" / "again").symlink_to(tmp_path / "photos" / "red")
    found = read_folder(tmp_path / "photos")
    assert np.concatenate([found.train[1], found.test[1]]).tolist().count(1) == 4
    assert [1, 2, 3] in np.concatenate([found.train[0], found.test[0]])[:, :, 0, 0].tolist()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    classes(tmp_path, {"red": 3, "blue": 3})
    os.mkfifo(tmp_path / "red" / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is no plain file"):
        read_folder(tmp_path)


def test_a_class_that_is_tested_and_not_trained_is_named(tmp_path):
    classes(tmp_path / "train", {"red": 3, "blue": 3})
    classes(tmp_path / "test", {"red": 3, "green": 3})
    with pytest.raises(UserError, match="no image of green is for training"):
        read_folder(tmp_path)


def test_a_network_learns_two_colours_from_a_folder(tmp_path):
    generator = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        for number in range(30):
            pixels = generator.integers(0, 60, (5, 5, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            save(tmp_path / "own" / name / f"{number}.png", pixels)
    config = make(Config, image_dir=tmp_path / "own", epochs=20, lr=1e-3, device="cpu")
    result = train(config)
    assert (result["dataset"], result["metrics"]["test_error"]) == ("own", 0)


def test_a_model_of_ten_classes_is_told_how_many_there_are(tmp_path):
    folder = classes(tmp_path / "own", {"red": 5, "blue": 5})
    config = make(Config, image_dir=folder, model="topology", topology="FC_10", device="cpu")
    with pytest.raises(UserError, match="End it with FC_2"):
        load(config)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"dataset": "mnist"}, "--dataset and --image-dir name two sets of images"),
        ({"data_dir": Path(".")}, "--data-dir and --image-dir name two sets of images"),
        ({"image_size": 0}, "--image-size 0: give 1 to"),
    ],
)
def test_options_that_do_not_go_with_own_images_are_refused(tmp_path, options, cause):
    with pytest.raises(UserError, match=cause):
        make(Config, image_dir=tmp_path, **options)
    with pytest.raises(UserError, match="Give them with --image-dir"):
        make(Config, image_size=8)


def test_bytes_are_shares_of_white(tmp_path):
    data = load_data(image_dir=classes(tmp_path, {"red": 5, "blue": 5}))
    torch.testing.assert_close(data.train.x[-1, :, 0, 0], torch.tensor([200 / 255, 0, 0]))
