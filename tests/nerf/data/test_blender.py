import json
import math
import shutil

import numpy as np
import pytest
import torch

from harness.errors import UserError
from nerf.data.blender import read_blender
from nerf.data.load import load_scene
from nerf.scene.rays import view_rays
from tests.nerf.data.scene_files import covered, project, visual_hull, write_blender, write_image

RED, CLEAR, HALF = [255, 0, 0, 255], [0, 0, 255, 0], [0, 0, 0, 128]
PICTURE = [[RED, CLEAR, HALF, RED], [RED, RED, CLEAR, CLEAR]]


@pytest.fixture
def folder(tmp_path):
    """Two training and five test views of 4 x 2 pixels, focal length 2."""
    turned = [[0.0, 0, 1, 4], [1, 0, 0, 0], [0, 1, 0, 0.5], [0, 0, 0, 1]]
    poses = [np.eye(4).tolist(), turned]
    return write_blender(tmp_path / "toy", [PICTURE] * 2, [PICTURE] * 5, poses)


def test_cameras_see_what_paper_and_pencil_say(folder):
    scene = read_blender(folder)
    assert scene.train.focal == pytest.approx(2.0)  # half of 4 pixels over tan(45 degrees)
    rays = view_rays(scene, scene.train, 1)
    torch.testing.assert_close(rays.origins, torch.tensor([[4.0, 0, 0.5]]).expand(8, 3))
    torch.testing.assert_close(rays.directions[0], torch.tensor([-1.0, -0.75, 0.25]))
    torch.testing.assert_close(rays.directions[7], torch.tensor([-1.0, 0.75, -0.25]))
    assert (rays.near.unique().tolist(), rays.far.unique().tolist()) == ([2.0], [6.0])


def test_pictures_are_on_white_where_they_are_transparent(folder):
    scene = read_blender(folder)
    grey = 1 - 128 / 255
    expected = torch.tensor([[[1.0, 0, 0], [1, 1, 1], [grey] * 3, [1, 0, 0]], [[1, 0, 0]] * 2 + [[1, 1, 1]] * 2])
    torch.testing.assert_close(scene.train.images, expected.expand(2, 2, 4, 3))
    assert scene.white_background


def test_pictures_without_transparency_are_as_stored_and_before_black(tmp_path):
    pixels = np.arange(24).reshape(2, 4, 3)
    scene = read_blender(write_blender(tmp_path / "toy", [pixels], [pixels]))
    torch.testing.assert_close(scene.train.images[0], torch.from_numpy(pixels / 255).float())
    assert not scene.white_background


def test_smaller_pictures_are_means_over_areas_and_see_the_same(folder):
    scene = read_blender(folder, size=2)
    grey = 1 - 128 / 255
    left = [1.0, 1 / 4, 1 / 4]
    right = [(grey + 1 + 1 + 1) / 4] + [(grey + 0 + 1 + 1) / 4] * 2
    torch.testing.assert_close(scene.train.images[0], torch.tensor([[left, right]]))
    assert scene.train.focal == pytest.approx(1.0)


def test_no_view_is_dropped_and_names_are_those_of_the_files(folder):
    scene = read_blender(folder)
    assert (len(scene.train), len(scene.test)) == (2, 5)
    assert scene.test.names == ("r_0", "r_1", "r_2", "r_3", "r_4")
    assert (scene.name, scene.train.height, scene.train.width) == ("toy", 2, 4)


def test_the_turntable_is_as_far_away_as_the_cameras(tmp_path):
    away = np.eye(4)
    away[:3, 3] = [0.0, 3.0, 4.0]
    scene = read_blender(write_blender(tmp_path / "toy", [PICTURE], [PICTURE], [away.tolist()]))
    torch.testing.assert_close(scene.path[:, :, 3].norm(dim=1), torch.full((len(scene.path),), 5.0))


def test_file_names_may_have_their_suffix(folder):
    path = folder / "transforms_train.json"
    path.write_text(path.read_text().replace('r_1"', 'r_1.png"'))
    assert read_blender(folder).train.names == ("r_0", "r_1")


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


BROKEN = {
    "no-json": (lambda f: (f / "transforms_test.json").unlink(), r"transforms_test\.json: No such file"),
    "not-json": (lambda f: (f / "transforms_train.json").write_text("{"), r"transforms_train\.json is not JSON"),
    "list": (lambda f: (f / "transforms_train.json").write_text("[]"), r"train\.json: camera_angle_x is None"),
    "angle": (
        lambda f: change(f / "transforms_train.json", lambda c: c.update(camera_angle_x="wide")),
        r"camera_angle_x is wide",
    ),
    "no-frames": (
        lambda f: change(f / "transforms_test.json", lambda c: c.pop("frames")),
        r"test\.json: there is no list",
    ),
    "no-path": (
        lambda f: change(f / "transforms_test.json", lambda c: c["frames"][3].pop("file_path")),
        r"test\.json: frame 3 has no file_path",
    ),
    "matrix": (
        lambda f: change(f / "transforms_train.json", lambda c: c["frames"][1]["transform_matrix"][2].pop()),
        r"transform_matrix of frame 1",
    ),
    "nan": (
        lambda f: change(
            f / "transforms_train.json", lambda c: c["frames"][1]["transform_matrix"][0].__setitem__(0, math.nan)
        ),
        r"transform_matrix of frame 1",
    ),
    "huge": (
        lambda f: change(
            f / "transforms_train.json", lambda c: c["frames"][1]["transform_matrix"][0].__setitem__(0, 10**400)
        ),
        r"transforms_train\.json: the transform_matrix of frame 1",
    ),
    "infinite in float32": (
        lambda f: change(
            f / "transforms_train.json", lambda c: c["frames"][1]["transform_matrix"][0].__setitem__(0, 1e39)
        ),
        r"transforms_train\.json: the transform_matrix of frame 1",
    ),
    "huge-angle": (
        lambda f: change(f / "transforms_train.json", lambda c: c.update(camera_angle_x=10**400)),
        r"transforms_train\.json: camera_angle_x is",
    ),
    "no-image": (lambda f: (f / "train" / "r_1.png").unlink(), r"r_1\.png: no such file"),
    "size": (lambda f: write_image(f / "test" / "r_2.png", [[RED]]), r"r_2\.png is 1x1 where r_0\.png is 4x2"),
    "no-picture": (lambda f: (f / "test" / "r_2.png").write_bytes(b"no"), r"r_2\.png cannot be read as a picture"),
    "cut": (
        lambda f: (f / "test" / "r_2.png").write_bytes((f / "test" / "r_2.png").read_bytes()[:-30]),
        r"r_2\.png cannot be read as a picture",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_missing_or_broken_is_named(case, folder):
    harm, message = BROKEN[case]
    harm(folder)
    with pytest.raises(UserError, match=message):
        read_blender(folder)


def test_a_size_that_does_not_fit_is_an_error_that_says_which_do(folder):
    with pytest.raises(UserError, match=r"--size 8: the pictures are 4 wide.*Give 1 to 4"):
        read_blender(folder, size=8)
    with pytest.raises(UserError, match=r"--size 3: .*height of 1\.50.*multiple of 2"):
        read_blender(folder, size=3)


def assert_cameras_agree(scene, half):
    """What all views see as solid covers what each sees: only true if poses, axes and focal length are right."""
    views = scene.train
    hull = visual_hull(views, half)
    assert len(hull) > 100
    assert min(covered(views, index, hull) for index in range(0, len(views), 7)) > 0.85
    for pose in views.poses:
        _, depth = project(hull, pose, float(views.focal[0, 0]), views.height, views.width)
        assert scene.near < float(depth.min()) < float(depth.max()) < scene.far


def test_the_cameras_of_the_procedural_scene_agree():
    assert_cameras_agree(load_scene("synthetic", None, None, size=50), 1.1)


@pytest.mark.data
def test_lego_has_its_views_and_its_cameras_agree(data_dir):
    scene = load_scene("blender", "lego", data_dir, size=50)
    assert (len(scene.train), len(scene.test)) == (100, 50)
    assert scene.train.focal == pytest.approx(0.5 * 50 / math.tan(0.5 * 0.6911112), rel=1e-4)
    assert_cameras_agree(scene, 1.3)


@pytest.mark.data
def test_all_that_is_seen_of_lego_is_within_the_bounds(data_dir):
    scene = load_scene("blender", "lego", data_dir, size=50)
    for index in range(0, 100, 9):
        rays = view_rays(scene, scene.train, index)
        lower, upper = ((corner - rays.origins) / rays.directions for corner in scene.bounds)
        enter = torch.minimum(lower, upper).amax(dim=1)
        leave = torch.maximum(lower, upper).amin(dim=1)
        seen = (scene.train.images[index] < 1).any(dim=2).flatten()
        assert bool((enter < leave)[seen].all())


@pytest.mark.data
def test_a_lego_without_a_picture_is_named(data_dir, tmp_path):
    shutil.copytree(data_dir / "nerf_synthetic" / "lego", tmp_path / "nerf_synthetic" / "lego")
    gone = tmp_path / "nerf_synthetic" / "lego" / "train" / "r_99.png"
    gone.parent.chmod(0o755)
    gone.unlink()
    with pytest.raises(UserError, match=r"lego/train/r_99\.png: no such file"):
        load_scene("blender", "lego", tmp_path, size=50)
