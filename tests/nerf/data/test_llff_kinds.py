"""LLFF's form for other captures than it was made for: from all sides, by several lenses, of other pictures."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import UserError
from nerf.data.llff import read_llff
from nerf.scene.rays import Rays, to_scene, training_rays, view_rays
from tests.nerf.data.scene_files import llff_row, write_llff

OBJECT = (1.0, -2.0, 0.5)  # where some scenes have theirs


def ring(count=9, radius=3.0, up=(0.0, 0.0, 1.0), tilt=0.0, depths=(1.5, 6.0)):
    """Rows of cameras around OBJECT that look at it; photographs of 16 x 12."""
    rows, up = [], np.array(up)
    side = np.array([up[1], up[2], up[0]])
    other = np.cross(up, side)
    for angle in 2 * math.pi * np.arange(count) / count:
        back = math.cos(tilt) * (math.cos(angle) * side + math.sin(angle) * other) + math.sin(tilt) * up
        right = np.cross(up, back) / np.linalg.norm(np.cross(up, back))
        position = np.array(OBJECT) + radius * back
        rows.append(llff_row(right, np.cross(back, right), back, position, (12, 16, 14.0), depths))
    return np.stack(rows)


def shades(count=9):
    return [np.full((6, 8, 3), 10 * number) for number in range(count)]


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
@pytest.mark.parametrize("tilt", [0.0, 0.4])
def test_cameras_around_a_point_are_on_a_sphere_of_radius_1_around_the_origin(up, tilt, tmp_path, capsys):
    scene = read_llff(write_llff(tmp_path / "toy", ring(up=up, tilt=tilt), shades()))
    assert not scene.ndc
    assert "look at one point from many sides" in capsys.readouterr().err
    poses = torch.cat([scene.train.poses, scene.test.poses])
    torch.testing.assert_close(poses[:, :, 2], poses[:, :, 3], atol=1e-5, rtol=0)  # back is outwards, of length 1
    torch.testing.assert_close(poses[:, 2, 3], torch.full((9,), math.sin(tilt)), atol=1e-5, rtol=0)  # z is up
    assert bool((poses[:, 2, 1] > 0).all())
    assert (scene.near, scene.far) == pytest.approx((0.9 * 1.5 / 3, 6.0 / 3))
    torch.testing.assert_close(scene.path[:, :, 3].norm(dim=1), torch.ones(120), atol=1e-5, rtol=0)
    assert len(scene.test) == 2
    rays, _ = training_rays(scene)
    ends = rays.origins + rays.far * rays.directions
    assert bool(((ends >= scene.bounds[0]) & (ends <= scene.bounds[1])).all())


def test_cameras_that_look_out_of_a_ring_are_refused(tmp_path):
    rows = ring().reshape(9, 17)
    matrices = rows[:, :15].reshape(9, 3, 5)
    matrices[:, :, 1:3] *= -1  # right and back: each turns around its vertical
    with pytest.raises(UserError, match=r"poses_bounds\.npy: the cameras look neither all one way nor at one point"):
        read_llff(write_llff(tmp_path / "toy", rows, shades()))


def test_a_scene_of_which_some_rays_look_sideways_is_not_seen_in_normalised_coordinates(tmp_path):
    """Half a ring: its cameras look forward on average, and its ends do not."""
    scene = read_llff(write_llff(tmp_path / "toy", ring(18)[:10], shades(10)))
    assert not scene.ndc


def test_two_lenses_in_one_file_are_two_lenses(tmp_path):
    x, y, z = np.eye(3)
    rows = [llff_row(x, y, z, [k, 0, 0], (24, 32, 40.0) if k % 2 else (48, 64, 60.0)) for k in range(9)]
    scene = read_llff(write_llff(tmp_path / "toy", np.stack(rows), shades()))
    expected = [40 * 8 / 32 if k % 2 else 60 * 8 / 64 for k in (1, 2, 3, 4, 5, 6, 7)]
    assert scene.ndc
    for found in scene.train.focal.T.tolist():
        assert found == pytest.approx(expected)
    assert scene.test.focal.unique().tolist() == pytest.approx([7.5])
    first, second = (view_rays(scene, scene.train, index) for index in (0, 1))
    widths = [
        (rays.views[5] / rays.views[5, 2] - rays.views[3] / rays.views[3, 2])[0].abs() for rays in (first, second)
    ]
    assert [width.item() for width in widths] == pytest.approx([2 / 10, 2 / 7.5])


def test_points_of_a_forward_scene_of_two_lenses_have_one_place(tmp_path):
    """Rays of two cameras to one point meet in normalised coordinates as well."""
    x, y, z = np.eye(3)
    rows = [llff_row(x, y, z, [k / 4, 0, 0], (24, 32, 40.0) if k % 2 else (24, 32, 30.0)) for k in range(9)]
    scene = read_llff(write_llff(tmp_path / "toy", np.stack(rows), shades()))
    width, height, focal = 8, 6, scene.train.focal[0, 0].item()
    point = torch.tensor([0.2, -0.1, -3.0])
    expected = torch.tensor(
        [-2 * focal / width * point[0] / point[2], -2 * focal / height * point[1] / point[2], 1 + 2 / point[2]]
    )
    for index in range(7):
        origin = scene.train.poses[index][None, :, 3]
        none = origin.new_zeros(1, 1)
        ray = to_scene(scene, Rays(origin, point[None] - origin, point[None], none, none))
        t = 1 - 1 / 3.0
        torch.testing.assert_close((ray.origins + t * ray.directions)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scale", "dtype"), [(2.0, np.float64), (1.0, np.int64), (1.0, np.float32), (1.0, ">f8")])
def test_rows_of_whole_numbers_or_scaled_cameras_are_rows(scale, dtype, tmp_path):
    x, y, z = scale * np.eye(3)
    rows = np.stack([llff_row(x, y, z, [k, 5, 7]) for k in range(9)]).astype(dtype)
    scene = read_llff(write_llff(tmp_path / "toy", rows, shades()))
    poses = torch.cat([scene.train.poses, scene.test.poses])
    torch.testing.assert_close(poses[:, :, :3], torch.eye(3).expand(9, 3, 3))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (np.zeros((3, 3)), "the matrix of row 0 has an axis of length 0"),
        (np.diag([1.0, 1.0, -1.0]), "the matrix of row 0 mirrors"),
        (np.array([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]]), "the matrix of row 0 has axes that are not at right angles"),
    ],
)
def test_rows_that_hold_no_rotation_are_named(axes, message, tmp_path):
    rows = np.stack([llff_row(*axes, [k, 0, 0]) for k in range(9)])
    with pytest.raises(UserError, match=rf"poses_bounds\.npy: {message}"):
        read_llff(write_llff(tmp_path / "toy", rows, shades()))


@pytest.mark.parametrize("name", ["images_2", "images_16", "images"])
@pytest.mark.parametrize("suffix", [".webp", ".tif", ".JPG", ".png"])
def test_photographs_of_any_size_and_kind_are_found(name, suffix, tmp_path):
    rows = np.stack([llff_row(*np.eye(3), [k, 0, 0]) for k in range(9)])
    folder = write_llff(tmp_path / "toy", rows, [])
    (folder / name).mkdir()
    for number, pixels in enumerate(shades()):
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"image{number:03d}{suffix}")
    scene = read_llff(folder)
    assert (len(scene.train), scene.train.width) == (7, 8)
    assert scene.train.names[0] == "image001"
    assert scene.train.focal[0].tolist() == pytest.approx([10.0, 10.0])


def test_transparent_photographs_are_seen_before_the_background_of_rays(tmp_path):
    rows = np.stack([llff_row(*np.eye(3), [k, 0, 0]) for k in range(9)])
    folder = write_llff(tmp_path / "toy", rows, [np.full((6, 8, 4), [90, 60, 30, 0])] * 9)
    for background, value in ((None, 1.0), ("white", 1.0), ("black", 0.0)):
        scene = read_llff(folder, background=background)
        assert scene.white_background == bool(value)
        assert scene.train.images.unique().tolist() == [value]
