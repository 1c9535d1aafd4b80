import math

import torch

from nerf.scene.poses import average_pose, oriented, pose_from_spherical, recentred, spiral, turntable


def assert_rotations(poses):
    turned = poses[..., :3].reshape(-1, 3, 3)
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3).expand_as(turned), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(len(turned)))


def some_poses(count=5):
    generator = torch.Generator().manual_seed(0)
    back = torch.tensor([0.3, -0.2, 1.0]) + 0.2 * torch.randn(count, 3, generator=generator)
    return oriented(back, torch.tensor([0.1, 1.0, 0.0]), torch.randn(count, 3, generator=generator))


def test_a_camera_on_the_x_axis_has_y_to_its_right_and_z_above():
    pose = pose_from_spherical(torch.tensor(0.0), torch.tensor(0.0), 4.0)
    torch.testing.assert_close(pose, torch.tensor([[0.0, 0, 1, 4], [1, 0, 0, 0], [0, 1, 0, 0]]))


def test_a_raised_camera_is_at_its_elevation_and_looks_down_at_the_origin():
    pose = pose_from_spherical(torch.tensor(90.0), torch.tensor(30.0), 2.0)
    torch.testing.assert_close(pose[:, 3], torch.tensor([0.0, math.sqrt(3), 1.0]))
    torch.testing.assert_close(pose[:, 3] - 2 * pose[:, 2], torch.zeros(3))
    assert float(pose[2, 1]) > 0
    assert abs(float(pose[2, 0])) < 1e-6


def test_a_turntable_goes_once_around_in_equal_steps():
    poses = turntable(8, elevation=30.0, radius=4.0)
    assert poses.shape == (8, 3, 4)
    assert_rotations(poses)
    steps = (poses[:, :, 3] - poses[:, :, 3].roll(1, dims=0)).norm(dim=1)
    chord = 2 * 4 * math.cos(math.radians(30)) * math.sin(math.pi / 8)
    torch.testing.assert_close(steps, torch.full((8,), chord))
    torch.testing.assert_close(poses[:, 2, 3], torch.full((8,), 2.0))


def test_recentred_poses_are_on_average_the_identity_and_keep_how_they_are_to_each_other():
    poses = some_poses()
    moved = recentred(poses)
    torch.testing.assert_close(average_pose(moved), torch.eye(3, 4), atol=1e-6, rtol=0)
    assert_rotations(moved)
    for a in range(5):
        for b in range(5):  # where b is, and how it is turned, as a sees it
            before = poses[a, :, :3].T @ torch.cat([poses[b, :, :3], (poses[b, :, 3:] - poses[a, :, 3:])], dim=1)
            after = moved[a, :, :3].T @ torch.cat([moved[b, :, :3], (moved[b, :, 3:] - moved[a, :, 3:])], dim=1)
            torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_all_cameras_of_a_spiral_look_at_one_point_and_stay_within_the_radii():
    poses = recentred(some_poses(9))
    path = spiral(poses, focus=3.0, count=24, turns=2)
    assert_rotations(path)
    target = torch.tensor([0.0, 0.0, -3.0])
    towards = target - path[:, :, 3]
    torch.testing.assert_close(-path[:, :, 2], towards / towards.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)
    radii = poses[:, :, 3].abs().quantile(0.9, dim=0)
    torch.testing.assert_close(path[0, :, 3], torch.tensor([radii[0], 0.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(path[3, 1, 3], -radii[1], atol=1e-5, rtol=0)  # a quarter of the first turn
    assert bool((path[:, :, 3].abs() <= radii + 1e-5).all())


def test_a_spiral_ends_next_to_where_it_starts():
    path = spiral(recentred(some_poses(9)), focus=3.0, count=100, turns=2)
    steps = (path[:, :, 3] - path[:, :, 3].roll(1, dims=0)).norm(dim=1)
    assert float(steps[0]) < 1.5 * float(steps[1:].max())
