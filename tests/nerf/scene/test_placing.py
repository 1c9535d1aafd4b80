"""Where cameras look, and near and far of scenes of every size."""

import json
import math

import pytest
import torch
from PIL import Image

from harness.errors import UserError
from nerf.data.blender import read_blender
from nerf.scene.placing import focus_point
from nerf.scene.poses import turntable
from nerf.scene.rays import training_rays, view_rays
from tests.nerf.data.scene_files import project

OBJECT = (1.0, -2.0, 0.5)  # where some scenes have theirs


def circle(count, radius, centre=(0.0, 0.0, 0.0), outwards=False):
    """Cameras around a point, ``[count, 3, 4]``; outwards: with their backs to it."""
    poses = turntable(count, 30.0, radius)
    if outwards:
        poses = torch.cat(
            [poses[:, :, :1] * torch.tensor(-1.0), poses[:, :, 1:2], -poses[:, :, 2:3], poses[:, :, 3:]], 2
        )
    poses[:, :, 3] += torch.tensor(centre)
    return poses


def scene_of(folder, poses, name="transforms_train.json", **content):
    """A scene in JSON whose training cameras are `poses`, and whose test camera is the first of them."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for number, pose in enumerate(poses.tolist()):
        Image.new("RGB", (8, 6), (90, 60, 30)).save(folder / f"{number:03d}.png")
        frames.append({"file_path": f"{number:03d}", "transform_matrix": [*pose, [0, 0, 0, 1]]})
    (folder / name).write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames} | content))
    if name == "transforms_train.json":
        test = {"camera_angle_x": 0.8, "frames": frames[:1]}
        (folder / "transforms_test.json").write_text(json.dumps(test))
    return folder


def test_cameras_look_at_the_point_where_their_axes_meet():
    torch.testing.assert_close(focus_point(circle(7, 3.0, OBJECT).double()), torch.tensor(OBJECT).double())
    two = circle(8, 3.0, OBJECT)[[0, 1]].double()
    torch.testing.assert_close(focus_point(two), torch.tensor(OBJECT).double(), atol=1e-5, rtol=0)


def test_the_point_is_the_nearest_to_axes_that_do_not_meet():
    """Two axes along x and y that pass each other at a distance of 2."""
    along_x = torch.tensor([[0.0, 0, -1, 5], [1, 0, 0, 0], [0, -1, 0, 1]])
    along_y = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 5], [0, 1, 0, -1]])
    poses = torch.stack([along_x, along_y]).double()
    poses[:, :, 2] *= -1  # both at +5 look at the origin's neighbourhood
    torch.testing.assert_close(focus_point(poses), torch.zeros(3).double())


@pytest.mark.parametrize(
    "poses",
    [
        circle(7, 3.0, outwards=True),
        torch.eye(3, 4).expand(5, 3, 4).clone(),
        circle(5, 0.0),  # one tripod
        circle(5, 0.0, OBJECT),
    ],
)
def test_cameras_that_look_one_way_or_outwards_look_at_no_point(poses):
    assert focus_point(poses.double()) is None


@pytest.mark.parametrize("radius", [3.5, 4.0, 4.9])
def test_a_scene_like_the_published_ones_stays_as_it_is(radius, tmp_path, capsys):
    poses = circle(9, radius)
    scene = read_blender(scene_of(tmp_path, poses))
    assert torch.equal(scene.train.poses, poses)
    assert (scene.near, scene.far) == (2.0, 6.0)
    assert scene.bounds.tolist() == [[-1.5] * 3, [1.5] * 3]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["transforms_train.json", "transforms.json"])
@pytest.mark.parametrize(("radius", "centre"), [(1.0, (0, 0, 0)), (0.02, OBJECT), (40.0, OBJECT), (4.0, (9, 0, 0))])
def test_another_scene_is_set_up_like_them_and_says_so(name, radius, centre, tmp_path, capsys):
    poses = circle(17, radius, centre)
    scene = read_blender(scene_of(tmp_path, poses, name))
    message = capsys.readouterr().err
    assert f"made {4 / radius:.3g} times as large" in message
    assert f"rays run from {radius / 2:.3g} to {1.5 * radius:.3g} in the units of the file" in message
    assert (scene.near, scene.far) == pytest.approx((2.0, 6.0), rel=1e-4)
    chosen = poses if name == "transforms_train.json" else poses[torch.arange(17) % 8 != 0]
    expected = (chosen[:, :, 3] - torch.tensor(centre, dtype=torch.float32)) * (4 / radius)
    torch.testing.assert_close(scene.train.poses[:, :, 3], expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(scene.train.poses[:, :, :3], chosen[:, :, :3])
    torch.testing.assert_close(scene.path[:, :, 3].norm(dim=1), torch.full((120,), 4.0), atol=1e-3, rtol=0)


def test_what_a_moved_scene_shows_is_seen_at_the_same_pixels(tmp_path):
    """A corner of the object, 0.3 beside the point that cameras at a distance of 1 look at."""
    poses = circle(9, 1.0, OBJECT)
    scene = read_blender(scene_of(tmp_path, poses))
    corner = torch.tensor(OBJECT) + torch.tensor([0.3, 0.1, -0.2])
    moved = (corner - torch.tensor(OBJECT)) * 4
    focal = 4 / math.tan(0.4)
    for before, after in zip(poses, scene.train.poses, strict=True):
        expected, depth = project(corner[None], before, focal, 6, 8)
        found, scaled = project(moved[None], after, focal, 6, 8)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(scaled, 4 * depth, atol=1e-4, rtol=0)
        assert scene.near < scaled.item() < scene.far


def test_a_scene_that_lies_far_from_the_origin_keeps_its_digits(tmp_path):
    """Metres of a map: in float32 they would be known to 3 centimetres."""
    poses = circle(9, 4.0).double()
    far_off = torch.tensor([412_345.0, 5_412_345.0, 100.0], dtype=torch.float64)
    scene = read_blender(scene_of(tmp_path, torch.cat([poses[:, :, :3], poses[:, :, 3:] + far_off[:, None]], dim=2)))
    torch.testing.assert_close(scene.train.poses[:, :, 3], poses[:, :, 3].float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(scene.path[:, :, 3].norm(dim=1), torch.full((120,), 4.0), atol=1e-3, rtol=0)


def test_near_and_far_are_in_the_units_of_the_file(tmp_path):
    scene = read_blender(scene_of(tmp_path, circle(9, 10.0)), near=1.0, far=30.0)
    assert (scene.near, scene.far) == pytest.approx((0.4, 12.0))
    scene = read_blender(scene_of(tmp_path, circle(9, 10.0), near=7, far=20), far=30.0)
    assert (scene.near, scene.far) == pytest.approx((2.8, 12.0))
    scene = read_blender(scene_of(tmp_path, circle(9, 4.0)), near=0.5)
    assert (scene.near, scene.far) == (0.5, 6.0)


def test_cameras_at_several_distances_are_all_seen_from(tmp_path):
    poses = torch.cat([circle(5, 1.0), circle(5, 3.0), circle(5, 2.0)])
    scene = read_blender(scene_of(tmp_path, poses))
    assert (scene.near, scene.far) == pytest.approx((0.5 * 2, 1.5 * 6))


@pytest.mark.parametrize(("near", "far"), [(6.0, 9.0), (0.1, 0.5)])
def test_a_range_in_which_nothing_lies_is_refused(near, far, tmp_path):
    with pytest.raises(UserError, match=r"look at something 1 to 1 away, and rays run from .*Give --near and --far"):
        read_blender(scene_of(tmp_path, circle(9, 1.0)), near=near, far=far)


def test_a_range_that_ends_before_it_begins_is_refused(tmp_path):
    with pytest.raises(UserError, match="rays would run from 7 to 6"):
        read_blender(scene_of(tmp_path, circle(9, 4.0)), near=7.0)


def test_cameras_that_look_one_way_need_a_range_in_one_file_and_have_the_published_one_in_two(tmp_path, capsys):
    poses = torch.eye(3, 4).repeat(9, 1, 1)
    poses[:, 0, 3] = torch.arange(9) / 10
    with pytest.raises(UserError, match=r"look at no common point.*--near and --far"):
        read_blender(scene_of(tmp_path / "one", poses, "transforms.json"))
    scene = read_blender(tmp_path / "one", near=0.5, far=3.0)
    assert (scene.near, scene.far) == (0.5, 3.0)
    capsys.readouterr()
    scene = read_blender(scene_of(tmp_path / "two", poses))
    assert (scene.near, scene.far) == (2.0, 6.0)
    assert "its cameras look at no common point, and rays run from 2 to 6" in capsys.readouterr().err
    assert torch.equal(scene.path.unique(dim=0), poses.unique(dim=0))


def test_all_rays_are_within_the_bounds_of_a_scene_that_was_moved(tmp_path):
    distorted = {"k1": -0.2, "k2": 0.02, "cx": 3.0, "cy": 3.5, "w": 8, "h": 6}
    scene = read_blender(scene_of(tmp_path, circle(9, 1.0), **distorted))
    for rays in (training_rays(scene)[0], view_rays(scene, scene.test, 0)):
        for t in (rays.near, rays.far):
            points = rays.origins + t * rays.directions
            assert bool(((points >= scene.bounds[0]) & (points <= scene.bounds[1])).all())
