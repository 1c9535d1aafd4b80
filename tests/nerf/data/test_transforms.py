"""Camera files of other programs: which pictures they mean, how they are split, what is used and what is refused."""

import json
import math
import re

import pytest
import torch
from PIL import Image

from harness.errors import UserError
from nerf.data.blender import read_blender
from nerf.scene.poses import turntable
from tests.nerf.data.scene_files import IDENTITY

AHEAD = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]


def draw(path, size=(20, 10), shade=90, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade if mode == "L" else (shade,) * len(mode)).save(path)


def around(count, radius=4.0):
    """Cameras on a circle that look at the origin, 4 x 4."""
    return [[*pose, [0.0, 0.0, 0.0, 1.0]] for pose in turntable(count, 30.0, radius).tolist()]


def write_json(path, frames, encoding="utf-8", **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | {"frames": frames}), encoding=encoding)
    return path.parent


def whole(folder, count=10, names="images/frame_{:05d}.png", frame=None, radius=4.0, **content):
    """A scene of one transforms.json, every picture of a shade of its own."""
    frames = []
    for number, matrix in enumerate(around(count, radius)):
        draw(folder / names.format(number), shade=10 * number)
        frames.append({"file_path": names.format(number), "transform_matrix": matrix} | (frame or {}))
    return write_json(folder / "transforms.json", frames, **({"camera_angle_x": 0.8} | content))


def halves(folder, name="a", frame=None, encoding="utf-8", matrix=AHEAD, **content):
    """A scene of two files that show the same picture."""
    frames = [{"file_path": name, "transform_matrix": matrix} | (frame or {})]
    for split in ("train", "test"):
        write_json(folder / f"transforms_{split}.json", frames, encoding, **({"camera_angle_x": 0.8} | content))
    return folder


# How one file for all is split


def test_one_file_is_split_by_every_eighth_file_name(tmp_path, capsys):
    content = json.loads((whole(tmp_path, 10) / "transforms.json").read_text())
    content["frames"].reverse()
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    scene = read_blender(tmp_path)
    assert scene.test.names == ("frame_00000", "frame_00008")
    assert scene.train.names == tuple(f"frame_0000{k}" for k in (1, 2, 3, 4, 5, 6, 7, 9))
    assert "every 8th frame in the order of file names is a test view, 2 of 10" in capsys.readouterr().err
    for views in (scene.train, scene.test):  # picture, camera and name belong together
        for name, image, pose in zip(views.names, views.images, views.poses, strict=True):
            number = int(name[-1])
            assert image[0, 0, 0].item() == pytest.approx(10 * number / 255)
            torch.testing.assert_close(pose, torch.tensor(around(10)[number][:3]))


@pytest.mark.parametrize("held_out", ["test_filenames", "val_filenames"])
def test_one_file_that_lists_its_splits_is_split_so(held_out, tmp_path):
    lists = {"train_filenames": ["images/frame_00003.png", "images/frame_00001.png"]}
    scene = read_blender(whole(tmp_path, 5, **lists, **{held_out: ["images/frame_00004.png"]}))
    assert (scene.train.names, scene.test.names) == (("frame_00001", "frame_00003"), ("frame_00004",))


def test_lists_that_do_not_go_together_are_named(tmp_path):
    one = ["images/frame_00001.png"]
    for number, (lists, message) in enumerate(
        (
            ({"train_filenames": one}, "test_filenames or val_filenames is no list"),
            (
                {"train_filenames": one, "test_filenames": one},
                r"frame_00001\.png is listed for training and for testing",
            ),
            (
                {"train_filenames": one, "test_filenames": ["b.png"]},
                "test_filenames names a picture that is in no frame",
            ),
            ({"train_filenames": 3, "test_filenames": one}, "train_filenames is no list"),
        )
    ):
        with pytest.raises(UserError, match=message):
            read_blender(whole(tmp_path / str(number), 3, **lists))


def test_a_picture_that_is_there_twice_would_be_in_both_splits(tmp_path):
    whole(tmp_path, 3)
    content = json.loads((tmp_path / "transforms.json").read_text())
    content["frames"].append(content["frames"][1])
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"frame_00001\.png twice"):
        read_blender(tmp_path)


def test_one_frame_is_no_scene(tmp_path):
    with pytest.raises(UserError, match="has one frame"):
        read_blender(whole(tmp_path, 1))


def test_two_files_come_before_one_and_validation_stands_in_for_testing(tmp_path, capsys):
    draw(tmp_path / "a.png", shade=50)
    whole(halves(tmp_path), 9)
    assert read_blender(tmp_path).train.names == ("a",)
    (tmp_path / "transforms_test.json").rename(tmp_path / "transforms_val.json")
    assert read_blender(tmp_path).test.names == ("a",)
    assert "the views of transforms_val.json are scored" in capsys.readouterr().err


def test_training_without_testing_says_how_to_split(tmp_path):
    draw(tmp_path / "a.png")
    (halves(tmp_path) / "transforms_test.json").unlink()
    with pytest.raises(UserError, match=r"transforms_test\.json.*rename transforms_train\.json to transforms\.json"):
        read_blender(tmp_path)


def test_a_folder_of_the_other_format_says_which(tmp_path):
    (tmp_path / "poses_bounds.npy").write_bytes(b"")
    with pytest.raises(UserError, match="read it with --dataset llff"):
        read_blender(tmp_path)


# Which file a file_path means


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ("a.png", "a"),
        ("a.jpg", "a"),
        ("a.PNG", "a"),
        ("a.JPG", "a.JPG"),
        ("a.webp", "a.webp"),
        ("a.tif", "a"),
        ("train/frame.0001.png", "./train/frame.0001"),
        ("train/frame.0001.jpg", "train/frame.0001.jpg"),
        ("v1.0/r_0.png", "./v1.0/r_0"),
        ("rgb/000013.png", "rgb\\000013.png"),
        ("rgb/000013.png", ".\\rgb\\000013"),
        ("a b/ä.png", "a b/ä.png"),
    ],
)
def test_a_file_path_finds_its_picture(stored, named, tmp_path):
    draw(tmp_path / stored)
    assert read_blender(halves(tmp_path, named)).train.names == (stored.rpartition("/")[2].rpartition(".")[0],)


def test_a_file_path_without_suffix_means_the_png(tmp_path):
    draw(tmp_path / "a.jpg", shade=10)
    draw(tmp_path / "a.png", shade=200)
    (tmp_path / "a").mkdir()
    assert read_blender(halves(tmp_path)).train.images.mean().item() == pytest.approx(200 / 255)


def test_a_name_with_backslashes_that_is_there_is_taken_as_it_stands(tmp_path):
    draw(tmp_path / "b\\a.png", shade=200)
    draw(tmp_path / "b" / "a.png", shade=10)
    assert read_blender(halves(tmp_path, "b\\a.png")).train.images.mean().item() == pytest.approx(200 / 255)


@pytest.mark.parametrize("name", ["x", "b\\x.png", "x" * 5000, "x\0", "\ud800", "a.png/x", ".", "/dev/zero"])
def test_a_file_path_that_finds_nothing_is_named(name, tmp_path):
    draw(tmp_path / "a.png")
    with pytest.raises(UserError, match="no such file"):
        read_blender(halves(tmp_path, name))


@pytest.mark.parametrize(("name", "shown"), [("frame.0001", "frame.0001.png"), ("x.JPG", "x.JPG"), ("b\\x", "b/x.png")])
def test_a_picture_that_is_not_there_has_the_name_that_was_looked_for(name, shown, tmp_path):
    draw(tmp_path / "a.png")
    with pytest.raises(UserError, match=rf"/{re.escape(shown)}: no such file"):
        read_blender(halves(tmp_path, name))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_every_encoding_that_it_may_have(encoding, tmp_path):
    draw(tmp_path / "ä.png")
    assert read_blender(halves(tmp_path, "ä", encoding=encoding)).train.names == ("ä",)


# Lenses


def focal(scene, index=0):
    """Focal lengths and principal point of a training view."""
    lens = scene.train.lens.of(index)
    return [*lens.focal[0].tolist(), *lens.centre[0].tolist()]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"camera_angle_x": 2 * math.atan(0.5)}, [20, 20, 10, 5]),
        ({"fl_x": 30}, [30, 30, 10, 5]),
        ({"fl_x": 30.0, "fl_y": 40.0}, [30, 40, 10, 5]),
        ({"fl_x": 30.0, "camera_angle_x": 0.1}, [30, 30, 10, 5]),  # as in instant-ngp, pixels come before angles
        ({"fl_x": 60.0, "fl_y": 80.0, "cx": 24.0, "cy": 8.0, "w": 40, "h": 20}, [30, 40, 12, 4]),  # of larger pictures
        ({"fl_x": 60.0, "w": 40}, [30, 30, 10, 5]),
        ({"fl_x": 60.0, "h": 20}, [30, 30, 10, 5]),
        ({"camera_angle_x": 2 * math.atan(0.5), "w": 40, "h": 20}, [20, 20, 10, 5]),
        ({"camera_angle_x": 2 * math.atan(0.5), "camera_angle_y": 2 * math.atan(0.25)}, [20, 20, 10, 5]),
        ({"fl_x": 30, "fl_y": None, "cx": None, "k1": None}, [30, 30, 10, 5]),
    ],
)
@pytest.mark.parametrize("place", ["file", "frame"])
def test_lenses_are_those_that_the_file_or_the_frame_says(said, expected, place, tmp_path):
    draw(tmp_path / "a.png")
    said = {"camera_angle_x": None} | said
    scene = read_blender(halves(tmp_path, **said) if place == "file" else halves(tmp_path, frame=said))
    assert focal(scene) == pytest.approx(expected)
    halved = read_blender(tmp_path, size=10)
    assert focal(halved) == pytest.approx([value / 2 for value in expected])


def test_each_of_two_files_speaks_for_its_own_pictures(tmp_path):
    draw(tmp_path / "a.png")
    halves(tmp_path, camera_angle_x=2 * math.atan(0.5))
    frames = [{"file_path": "a", "transform_matrix": AHEAD}]
    write_json(tmp_path / "transforms_test.json", frames, fl_x=40.0, cx=11.0)
    scene = read_blender(tmp_path)
    assert focal(scene) == pytest.approx([20, 20, 10, 5])
    assert scene.test.lens.focal[0].tolist() == [40.0, 40.0]
    assert scene.test.lens.centre[0].tolist() == [11.0, 5.0]


def test_distortion_is_read_in_the_order_of_its_names(tmp_path):
    draw(tmp_path / "a.png")
    said = {"k1": 0.1, "k2": -0.02, "k3": 0.003, "p1": 0.004, "p2": -0.005, "k4": 0.0, "camera_model": "OPENCV"}
    lens = read_blender(halves(tmp_path, **said)).train.lens
    assert lens.distortion.tolist() == [[0.1, -0.02, 0.004, -0.005, 0.003]]


def test_a_frame_of_another_lens_has_its_own_and_the_file_speaks_for_the_others(tmp_path):
    draw(tmp_path / "a.png")
    frames = [
        {"file_path": "a", "transform_matrix": AHEAD} | own
        for own in ({}, {"camera_angle_x": 2 * math.atan(0.25)}, {"cx": 12.0}, {"k1": 0.1})
    ]
    for split in ("train", "test"):
        write_json(tmp_path / f"transforms_{split}.json", frames, fl_x=20.0, cy=6.0, k2=0.01)
    scene = read_blender(tmp_path)
    found = [focal(scene, index) for index in range(4)]
    expected = [[20, 20, 10, 6], [40, 40, 10, 6], [20, 20, 12, 5], [20, 20, 10, 6]]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other)
    assert scene.train.lens.distortion[:, :2].tolist() == [[0, 0.01], [0, 0.01], [0, 0.01], [0.1, 0]]
    assert scene.train.focal.shape == (4, 2)


REFUSED = {
    "fisheye": ({"camera_model": "OPENCV_FISHEYE"}, "camera_model OPENCV_FISHEYE is not read, only .*Undistort"),
    "ngp's fisheye": ({"is_fisheye": True}, "is_fisheye is True"),
    "rational": ({"k1": 0.1, "k4": 0.1}, "k4 is 0.1"),
    "all around": ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
    "shutter": ({"rolling_shutter": [0, 0, 0.1]}, "rolling_shutter"),
    "folds": ({"k1": -9.0}, "the distortion k1 -9 turns back within the picture"),
    "oblong": ({"camera_angle_y": 0.8}, "by camera_angle_y the focal length up and down is 11.83 pixels, and 23.65"),
    "shape": ({"w": 20, "h": 20}, "w and h are 20 and 20, and the pictures are 20x10"),
    "text": ({"fl_x": "30"}, "fl_x is 30, not a number"),
    "none": ({"fl_x": 0}, "fl_x is 0, which is no size"),
    "behind": ({"fl_x": -30.0}, "fl_x is -30, which is no size"),
    "wide": ({"camera_angle_x": 3.2}, "camera_angle_x is 3.2, not an angle"),
    "degrees": ({"camera_angle_x": 45}, "camera_angle_x is 45, not an angle in radians"),
    "no angle": ({"camera_angle_x": None}, "camera_angle_x is None"),
    "outside": ({"cx": 40.0}, "the principal point cx, cy is 40, 5, outside"),
    "nan": ({"k1": math.nan}, "k1 is nan, not a number"),
    "mask": ({"mask_path": "m.png"}, "has mask_path. Masks are not read"),
    "white": ({"white_transparent": True}, "has white_transparent"),
    "near": ({"near": "close"}, "near is close, not a distance"),
    "range": ({"near": 3.0, "far": 2.0}, "rays would run from 3 to 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_such_lens_is_refused_by_name(case, tmp_path):
    said, message = REFUSED[case]
    draw(tmp_path / "a.png")
    with pytest.raises(UserError, match=message) as caught:
        read_blender(halves(tmp_path, **said))
    assert "transforms_train.json" in str(caught.value)


def test_a_scene_that_moves_is_refused(tmp_path):
    whole(tmp_path, 3, frame={"time": 0.5})
    assert len(read_blender(tmp_path).train) == 2  # all at one moment
    content = json.loads((tmp_path / "transforms.json").read_text())
    content["frames"][2]["time"] = 0.6
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="a scene that moves is not read"):
        read_blender(tmp_path)


def test_what_is_not_used_is_said_in_one_line(tmp_path, capsys):
    whole(tmp_path, 3, aabb_scale=4, offset=[0.5, 0.5, 0.5], frame={"depth_file_path": "d.png", "sharpness": 3.0})
    read_blender(tmp_path)
    [line] = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
    assert line.endswith("not used are aabb_scale, offset, depth_file_path.")


# Matrices


def turned(scale=(1.0, 1.0, 1.0), shear=0.0):
    """A camera at (1, 2, 3) that looks along -x, its right y and its up z."""
    right, up, back = [0.0, 1.0, shear], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]
    rows = [[scale[0] * right[k], scale[1] * up[k], scale[2] * back[k], float(k + 1)] for k in range(3)]
    return [*rows, [0.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize("scale", [(1, 1, 1), (2.5, 2.5, 2.5), (0.01, 0.01, 0.01), (1, 2, 3)])
def test_a_scaled_camera_sees_what_one_of_scale_1_does(scale, tmp_path):
    draw(tmp_path / "a.png")
    pose = read_blender(halves(tmp_path, matrix=turned(scale))).train.poses[0]
    torch.testing.assert_close(pose, torch.tensor([[0.0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 3]]))


def test_whole_numbers_and_three_rows_are_a_matrix(tmp_path):
    draw(tmp_path / "a.png")
    scene = read_blender(halves(tmp_path, matrix=AHEAD[:3]))
    assert scene.train.poses.dtype == torch.float32
    assert scene.train.poses[0, 2, 3].item() == 4.0


NO_ROTATIONS = {
    "zero": ([[0.0] * 4] * 4, "has an axis of length 0"),
    "no axis": (turned((1, 0, 1)), "has an axis of length 0"),
    "all zero but the last": ([[0.0] * 4] * 3 + [IDENTITY[3]], "has an axis of length 0"),
    "transposed": ([list(column) for column in zip(*turned(), strict=True)], "is transposed"),
    "mirrored": (turned((1, 1, -1)), "mirrors"),
    "sheared": (turned(shear=0.2), "axes that are not at right angles"),
    "projective": ([*turned()[:3], [0.0, 0.0, 0.0, 2.0]], "last row that is not 0 0 0 1"),
}


@pytest.mark.parametrize("case", NO_ROTATIONS)
def test_a_matrix_that_is_no_rotation_is_refused_by_what_it_is(case, tmp_path):
    matrix, message = NO_ROTATIONS[case]
    draw(tmp_path / "a.png")
    with pytest.raises(UserError, match=f"the transform_matrix of frame 0 .*{message}"):
        read_blender(halves(tmp_path, matrix=matrix))


# Pixels


def test_pictures_of_training_and_testing_are_seen_before_one_background(tmp_path):
    draw(tmp_path / "black.png", shade=0)
    draw(tmp_path / "clear.png", shade=0, mode="RGBA")
    for split, name in (("train", "black"), ("test", "clear")):
        frames = [{"file_path": name, "transform_matrix": AHEAD}]
        write_json(tmp_path / f"transforms_{split}.json", frames, camera_angle_x=0.8)
    with pytest.raises(UserError, match=r"clear\.png has an alpha channel and .*black\.png has none"):
        read_blender(tmp_path)
    for background, value in (("black", 0.0), ("white", 1.0)):
        scene = read_blender(tmp_path, background=background)
        assert scene.white_background == (background == "white")
        assert scene.test.images.unique().tolist() == [value]
        assert scene.train.images.unique().tolist() == [0.0]
