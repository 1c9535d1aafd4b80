"""Lenses against OpenCV's formula written out for one number at a time, and undone by another method."""

import itertools
import math

import pytest
import torch

from nerf.scene.lens import Lens, border, joined, pinhole
from nerf.scene.rays import camera_rays, training_rays, view_rays
from nerf.scene.views import Scene, Views

STRONG = (-0.28, 0.07, 0.004, -0.003, 0.01)  # k1, k2, p1, p2, k3 of a wide phone's lens


def lens(focal=(9.0, 7.0), centre=(5.5, 2.5), distortion=(0.0,) * 5):
    return Lens(*(torch.tensor([values], dtype=torch.float64) for values in (focal, centre, distortion)))


def seen_at(x, y, focal, centre, distortion):
    """The pixel at which a direction (x, y, 1), y downwards, is seen: OpenCV's formula, one number at a time."""
    k1, k2, p1, p2, k3 = distortion
    r = math.hypot(x, y)
    radial = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
    across = x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
    down = y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
    return focal[0] * across + centre[0], focal[1] * down + centre[1]


def direction_of(u, v, focal, centre, distortion):
    """The same the other way round, by fixed-point iteration, as OpenCV's undistortPoints does it."""
    k1, k2, p1, p2, k3 = distortion
    x0, y0 = (u - centre[0]) / focal[0], (v - centre[1]) / focal[1]
    x, y = x0, y0
    for _ in range(2000):
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        x, y = (
            (x0 - 2 * p1 * x * y - p2 * (r2 + 2 * x * x)) / radial,
            (y0 - p1 * (r2 + 2 * y * y) - 2 * p2 * x * y) / radial,
        )
    return x, y


@pytest.mark.parametrize("distortion", [(0.0,) * 5, (0.1, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.02, -0.03, 0.0), STRONG])
def test_every_pixel_looks_where_the_formula_undone_step_by_step_says(distortion):
    about = ((9.0, 7.0), (5.5, 2.5), distortion)
    rays = camera_rays(torch.eye(3, 4).double(), 6, 10, lens(*about), 1.0, 3.0)
    for number, (row, column) in enumerate(itertools.product(range(6), range(10))):
        x, y = direction_of(column + 0.5, row + 0.5, *about)
        found = rays.directions[number].tolist()
        assert found == pytest.approx([x, -y, -1.0], abs=1e-9)
        assert seen_at(found[0], -found[1], *about) == pytest.approx((column + 0.5, row + 0.5), abs=1e-9)


def test_the_principal_point_looks_straight_ahead_and_each_axis_has_its_focal_length():
    rays = camera_rays(torch.eye(3, 4), 4, 6, lens(focal=(2.0, 5.0), centre=(1.5, 3.5)), 1.0, 3.0)
    directions = rays.directions.reshape(4, 6, 3)
    assert directions[3, 1].tolist() == [0.0, 0.0, -1.0]
    assert directions[3, 5].tolist() == [2.0, 0.0, -1.0]  # four pixels to the right, of focal length 2
    assert directions[0, 1].tolist() == pytest.approx([0.0, 0.6, -1.0])  # three above, of focal length 5


def test_a_pinhole_is_the_lens_with_square_pixels_and_the_middle_of_the_picture():
    plain, spelled = pinhole(4, 6, 5.0), lens(focal=(5.0, 5.0), centre=(3.0, 2.0))
    for name in ("focal", "centre", "distortion"):
        assert torch.equal(getattr(plain, name), getattr(spelled, name))


def test_a_smaller_picture_is_seen_through_the_same_lens():
    """Where the middle of a block of four pixels looks, the one pixel that stands for it does."""
    small = camera_rays(torch.eye(3, 4), 3, 5, lens(distortion=STRONG).resized(0.5, 0.5), 1.0, 3.0)
    for row, column in ((1, 0), (2, 4)):
        x, y, _ = small.directions.reshape(3, 5, 3)[row, column].tolist()
        middle = (2 * column + 1, 2 * row + 1)  # where four pixels of the whole picture meet
        assert seen_at(x, -y, (9.0, 7.0), (5.5, 2.5), STRONG) == pytest.approx(middle, abs=1e-5)


@pytest.mark.parametrize(("side", "sound"), [(52, True), (56, False)])
def test_distortion_that_turns_back_within_the_picture_is_told_from_one_that_does_not(side, sound):
    """By k1 = -1 alone r is seen at r - r^3, never more than 38.5 pixels away; corners are 36.8 and 39.6 away."""
    wide = lens((100.0, 100.0), (side / 2, side / 2), (-1.0, 0.0, 0.0, 0.0, 0.0))
    assert wide.is_invertible(side, side).tolist() == [sound]


def test_each_camera_has_the_rays_of_its_own_lens():
    lenses = joined([lens(), lens(focal=(4.0, 4.0)), lens(distortion=STRONG)])
    generator = torch.Generator().manual_seed(0)
    poses, images = torch.randn(3, 3, 4, generator=generator), torch.rand(3, 6, 10, 3, generator=generator)
    views = Views(images, poses, lenses, ("a", "b", "c"))
    scene = Scene("some", views, views, 2.0, 6.0, True, False, poses, torch.zeros(2, 3))
    together, colours = training_rays(scene)
    for index, one in enumerate((lens(), lens(focal=(4.0, 4.0)), lens(distortion=STRONG))):
        alone = camera_rays(poses[index], 6, 10, one, 2.0, 6.0)
        part = slice(60 * index, 60 * index + 60)
        torch.testing.assert_close(together.directions[part], alone.directions)
        torch.testing.assert_close(view_rays(scene, views, index).directions, alone.directions)
        assert torch.equal(colours[part], images[index].reshape(60, 3))


def test_lenses_that_are_alike_are_kept_once_and_some_may_be_picked():
    assert len(joined([lens(), lens(), lens()])) == 1
    three = joined([lens(), lens(focal=(4.0, 4.0)), lens()])
    assert three.of(1).focal.tolist() == [[4.0, 4.0]]
    assert three.rows(torch.tensor([True, True, False])).focal.tolist() == [[9.0, 7.0], [4.0, 4.0]]
    assert lens().rows(torch.tensor([True, True, False])).focal.tolist() == [[9.0, 7.0]]


def test_the_border_of_a_picture_goes_through_its_corners():
    places = border(2, 4, 3).tolist()
    for corner in ([0, 0], [4, 0], [0, 2], [4, 2], [2, 0], [4, 1]):
        assert corner in places
    assert all(x in (0, 4) or y in (0, 2) for x, y in places)
