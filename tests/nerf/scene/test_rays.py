import math
from dataclasses import replace

import pytest
import torch

from nerf.scene.lens import pinhole
from nerf.scene.rays import Rays, camera_rays, pick, to_ndc, training_rays, view_rays
from nerf.scene.views import Scene, Views
from tests.nerf.data.scene_files import project

IDENTITY = torch.eye(3, 4)


def some_pose(generator, position=(0.0, 0.0, 0.0)):
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    q = q * r.diagonal().sign()
    q[:, 0] *= torch.linalg.det(q)
    return torch.cat([q, torch.tensor(position)[:, None]], dim=1)


@pytest.fixture
def scene():
    generator = torch.Generator().manual_seed(0)
    poses = torch.stack([some_pose(generator, (0.0, float(k), 4.0)) for k in range(3)])
    images = torch.rand(3, 2, 4, 3, generator=generator)
    views = Views(images, poses, pinhole(2, 4, 5.0), ("a", "b", "c"))
    bounds = torch.tensor([[-1.0] * 3, [1.0] * 3])
    return Scene("some", views, views, 2.0, 6.0, True, False, poses, bounds)


def test_a_camera_of_four_by_two_pixels_looks_where_paper_and_pencil_say():
    rays = camera_rays(IDENTITY, height=2, width=4, lens=pinhole(2, 4, 2.0), near=1.0, far=3.0)
    upper = [[-0.75, 0.25, -1], [-0.25, 0.25, -1], [0.25, 0.25, -1], [0.75, 0.25, -1]]
    lower = [[x, -y, z] for x, y, z in upper]
    torch.testing.assert_close(rays.directions, torch.tensor(upper + lower))
    torch.testing.assert_close(rays.origins, torch.zeros(8, 3))
    torch.testing.assert_close(rays.near, torch.ones(8, 1))
    torch.testing.assert_close(rays.far, torch.full((8, 1), 3.0))
    length = math.sqrt(0.75**2 + 0.25**2 + 1)
    torch.testing.assert_close(rays.views[0], torch.tensor([-0.75, 0.25, -1]) / length)


def test_a_ray_can_start_at_the_corner_of_its_pixel():
    rays = camera_rays(IDENTITY, height=2, width=4, lens=pinhole(2, 4, 2.0), near=1.0, far=3.0, offset=0.0)
    assert rays.directions[0].tolist() == [-1.0, 0.5, -1.0]
    assert rays.directions[7].tolist() == [0.5, 0.0, -1.0]


def test_a_turned_camera_sees_its_right_where_its_x_axis_points():
    pose = torch.tensor([[0.0, 0, 1, 7], [1, 0, 0, 8], [0, 1, 0, 9]])  # right is y, up is z, looks along -x
    rays = camera_rays(pose, height=1, width=2, lens=pinhole(1, 2, 0.5), near=0.0, far=1.0)
    torch.testing.assert_close(rays.directions, torch.tensor([[-1.0, -1, 0], [-1, 1, 0]]))
    torch.testing.assert_close(rays.origins, torch.tensor([[7.0, 8, 9], [7, 8, 9]]))


def test_points_along_a_ray_are_seen_in_the_middle_of_its_pixel():
    pose = some_pose(torch.Generator().manual_seed(1), (1.0, -2.0, 0.5))
    rays = camera_rays(pose, height=5, width=7, lens=pinhole(5, 7, 6.0), near=0.0, far=1.0)
    for t in (0.5, 3.0):
        pixel, depth = project(rays.origins + t * rays.directions, pose, 6.0, 5, 7)
        column, row = torch.arange(7).repeat(5) + 0.5, torch.arange(5).repeat_interleave(7) + 0.5
        torch.testing.assert_close(pixel.float(), torch.stack([column, row], dim=1), atol=1e-5, rtol=0)
        torch.testing.assert_close(depth.float(), torch.full((35,), t))  # t is depth along the camera's axis


def test_points_in_normalised_coordinates_are_projections_of_points_in_the_world():
    rays = camera_rays(
        IDENTITY + torch.tensor([0.0, 0, 0, 0.3]), height=6, width=8, lens=pinhole(6, 8, 5.0), near=0.0, far=1.0
    )
    seen = to_ndc(rays, height=6, width=8, focal=5.0)
    for depth in (1.5, 4.0, 100.0):
        x, y, z = (rays.origins + (depth + rays.origins[:, 2:]) * rays.directions).unbind(1)
        torch.testing.assert_close(z, torch.full((48,), -depth))
        expected = torch.stack([-5.0 / 4 * x / z, -5.0 / 3 * y / z, 1 + 2 / z], dim=1)  # OpenGL, near 1, far infinite
        t = 1 - 1 / depth
        torch.testing.assert_close(seen.origins + t * seen.directions, expected, atol=1e-5, rtol=1e-5)


def test_normalised_rays_go_from_the_near_plane_to_infinity_and_keep_their_views():
    pose = torch.cat([torch.eye(3), torch.tensor([[0.2], [-0.1], [0.4]])], dim=1)
    rays = camera_rays(pose, height=3, width=4, lens=pinhole(3, 4, 4.0), near=2.0, far=6.0)
    seen = to_ndc(rays, height=3, width=4, focal=4.0)
    torch.testing.assert_close(seen.origins[:, 2], -torch.ones(12))
    torch.testing.assert_close((seen.origins + seen.directions)[:, 2], torch.ones(12))
    assert (seen.near.unique().tolist(), seen.far.unique().tolist()) == ([0.0], [1.0])
    assert seen.near.shape == seen.far.shape == (12, 1)
    assert seen.views is rays.views


def test_training_rays_are_those_of_each_view_in_the_order_of_its_pixels(scene):
    rays, colours = training_rays(scene)
    for index in range(3):
        part = slice(8 * index, 8 * index + 8)
        for all_views, one in zip(pick(rays, part), view_rays(scene, scene.train, index), strict=True):
            torch.testing.assert_close(all_views, one)
        assert torch.equal(colours[part], scene.train.images[index].reshape(8, 3))


def test_a_scene_in_normalised_coordinates_gets_normalised_rays(scene):
    ahead = torch.eye(3, 4).expand(3, 3, 4)
    forward = replace(scene, ndc=True, near=0.0, far=1.0, train=replace(scene.train, poses=ahead))
    rays, _ = training_rays(forward)
    torch.testing.assert_close(rays.origins[:, 2], -torch.ones(24))
    torch.testing.assert_close(view_rays(forward, forward.train, 1).directions, rays.directions[8:16])


def test_rays_are_picked_by_number_mask_and_slice(scene):
    rays, _ = training_rays(scene)
    mask = torch.arange(24) % 5 == 0
    for index in (mask.nonzero()[:, 0], mask, slice(0, 24, 5)):
        some = pick(rays, index)
        assert isinstance(some, Rays)
        assert [len(part) for part in some] == [5] * 5
        assert torch.equal(some.directions, rays.directions[::5])


def test_rays_live_where_their_scene_does(scene):
    moved = scene.to("meta")
    rays, colours = training_rays(moved)
    assert {part.device.type for part in (*rays, colours, moved.path, moved.bounds)} == {"meta"}
