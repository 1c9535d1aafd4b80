import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from harness import cli
from harness.errors import UserError
from nerf import procedural
from nerf.data import solids
from nerf.data.blender import read_blender
from nerf.data.shapes import SOLIDS, Box, Sphere, hit
from nerf.data.solids import cached_scene, hemisphere, picture, trace, write_scene
from nerf.procedural import Config
from nerf.scene.lens import pinhole
from nerf.scene.rays import Rays, camera_rays


def signed_distance(points):
    """How far points [P, 3] are outside each solid (negative inside): [P, 4], from the drawing, not from the code."""
    x, y, z = points.T

    def box(x, y, z, half):
        q = np.abs(np.stack([x, y, z], axis=1)) - half
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)

    c, s = math.cos(math.radians(30)), math.sin(math.radians(30))
    u, v = x - 0.45, y + 0.3
    slab = box(x, y, z + 0.45, [0.88, 0.88, 0.1])
    sphere = np.sqrt((x + 0.4) ** 2 + (y + 0.35) ** 2 + (z - 0.1) ** 2) - 0.45
    cube = box(c * u + s * v, -s * u + c * v, z + 0.05, [0.3, 0.3, 0.3])
    radial, axial = np.hypot(x - 0.1, y - 0.5) - 0.28, np.abs(z - 0.2) - 0.55
    outside = np.hypot(np.maximum(radial, 0), np.maximum(axial, 0))
    return np.stack([slab, sphere, cube, outside + np.minimum(np.maximum(radial, axial), 0)], axis=1)


def march(origins, directions, far):
    """Where rays with directions of length 1 come within 1e-4 of a solid, by steps that cannot jump over one."""
    t = np.zeros(len(origins))
    for _ in range(400):
        distance = signed_distance(origins + t[:, None] * directions).min(axis=1)
        t = np.where((distance > 1e-4) & (t < far), t + distance, t)
    return t, distance <= 1e-4


def aimed_rays(count=2000, scale=1.0):
    """Rays from a sphere of radius 4 through the middle of the scene; directions of the length `scale`."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(count, 3, generator=generator)
    origins = 4 * origins / origins.norm(dim=1, keepdim=True)
    views = torch.randn(count, 3, generator=generator) * 0.5 - origins
    views = views / views.norm(dim=1, keepdim=True)
    ends = torch.zeros(count, 1), torch.full((count, 1), 100.0)
    return Rays(origins, scale * views, views, *ends)


def ray(origin, direction, near=0.0, far=100.0):
    direction = torch.tensor([direction])
    view = direction / direction.norm()
    return Rays(torch.tensor([origin]), direction, view, torch.tensor([[near]]), torch.tensor([[far]]))


def test_rays_hit_where_marching_along_them_comes_to_a_surface():
    rays = aimed_rays()
    expected, solid = march(rays.origins.double().numpy(), rays.views.double().numpy(), 10.0)
    _, alpha, distance = trace(rays)
    assert 300 < solid.sum() < 1900
    assert (alpha.bool().numpy() != solid).mean() < 0.003  # rays that graze a surface
    both = solid & alpha.bool().numpy()
    wrong = np.abs(distance.numpy() - expected)[both] > 0.01
    assert wrong.mean() < 0.003


def test_normals_are_the_slope_of_the_distance_and_face_the_ray():
    rays = aimed_rays()
    distance, normal, _ = hit(SOLIDS, rays)
    seen = distance.isfinite()
    points = (rays.origins + torch.where(seen, distance, 0)[:, None] * rays.directions)[seen].double().numpy()
    owner = np.abs(signed_distance(points)).argmin(axis=1)
    rows = np.arange(len(points))
    slope = np.stack(
        [(signed_distance(points + h) - signed_distance(points - h))[rows, owner] / 2e-4 for h in 1e-4 * np.eye(3)],
        axis=1,
    )
    wrong = np.abs(slope - normal[seen].numpy()).max(axis=1) > 0.02
    assert wrong.mean() < 0.01  # points on an edge
    assert bool(((normal * rays.directions).sum(dim=1)[seen] <= 1e-6).all())


def test_distance_is_counted_in_lengths_of_the_direction():
    _, _, one = trace(aimed_rays())
    _, _, half = trace(aimed_rays(scale=2.0))
    torch.testing.assert_close(half, one / 2)


def test_what_is_hit_before_near_or_behind_far_is_not_seen():
    down = [0.8, 0.8, 4.0], [0.0, 0.0, -1.0]  # on to the slab's top, at z = -0.35
    assert trace(ray(*down))[2].item() == pytest.approx(4.35)
    for near, far in ((0.0, 4.3), (4.4, 10.0)):
        colour, alpha, distance = trace(ray(*down, near, far))
        assert (colour.tolist(), alpha.item(), distance.item()) == ([[1.0] * 3], 0.0, math.inf)


def test_brightness_is_ambient_light_plus_lambert_where_there_is_no_highlight():
    light = np.array([0.4, -0.5, 0.77]) / math.sqrt(0.4**2 + 0.5**2 + 0.77**2)
    from_the_side = ray([5.0, 0.7, -0.4], [-1.0, 0.0, 0.0])  # on to the slab's side, whose normal is x
    colour, _, _ = trace(from_the_side)
    half = light + np.array([1.0, 0, 0])
    highlight = 0.25 * (half[0] / np.linalg.norm(half)) ** 24
    expected = np.array([0.85, 0.80, 0.70]) * (0.35 + 0.65 * light[0]) + highlight
    torch.testing.assert_close(colour[0], torch.from_numpy(expected).float())


def test_the_far_side_from_the_light_gets_ambient_light_only():
    colour, _, _ = trace(ray([-0.4, -0.35, -5.0], [0.0, 0.0, 1.0]))  # on to the slab from below
    torch.testing.assert_close(colour[0], 0.35 * torch.tensor([0.85, 0.80, 0.70]))


def test_squares_of_two_colours_take_turns():
    colours = [trace(ray([x, 0.8, 4.0], [0.0, 0.0, -1.0]))[0] for x in (-0.7, -0.2, 0.6, 0.8)]
    assert torch.equal(colours[2], colours[3])
    assert not torch.allclose(colours[0], colours[1], atol=0.1)
    torch.testing.assert_close(colours[1], colours[3])


def test_a_point_looks_different_from_different_sides():
    point = torch.tensor([-0.4, -0.35, 0.55])  # the sphere's top
    sides = [torch.tensor([0.5, -0.6, 1.0]), torch.tensor([-0.9, 0.6, 0.6])]
    colours = [trace(ray((point + 2 * side).tolist(), (-side).tolist()))[0][0] for side in sides]
    assert not torch.allclose(*colours, atol=0.02)


def test_a_ray_along_an_edge_or_parallel_to_a_face_gives_numbers():
    for origin, direction in (([0.88, -4.0, -0.45], [0.0, 1.0, 0.0]), ([0.1, 0.5, 4.0], [0.0, 0.0, -1.0])):
        colour, alpha, _ = trace(ray(origin, direction))
        assert bool(colour.isfinite().all())
        assert bool(alpha.isfinite().all())


def test_the_nearest_of_two_solids_is_seen_whatever_their_order():
    red, blue = Sphere((0.0, 0, 0), 1.0, (1.0, 0, 0)), Box((0.0, 3.0, 0), (1.0, 1, 1), (0.0, 0, 1))
    for order in ((red, blue), (blue, red)):
        distance, normal, colour = hit(order, ray([0.0, 10.0, 0.0], [0.0, -1.0, 0.0]))
        assert (distance.item(), normal[0].tolist(), colour[0].tolist()) == (6.0, [0, 1, 0], [0, 0, 1])


def test_pixels_on_an_outline_are_partly_transparent():
    seen = picture(hemisphere(4)[1], 40)
    alpha = seen[..., 3]
    ninths = alpha * 9
    torch.testing.assert_close(ninths, ninths.round(), atol=1e-4, rtol=0)  # 3 x 3 rays a pixel
    assert 40 < int(((alpha > 0) & (alpha < 1)).sum()) < 400


def test_a_pixel_on_white_is_the_mean_of_its_nine_rays():
    pose = hemisphere(4)[1]
    seen = picture(pose, 20)
    focal = 30 / math.tan(0.6911112 / 2)
    colour, _, _ = trace(camera_rays(pose, 60, 60, pinhole(60, 60, focal), 0.0, 100.0))
    expected = torch.nn.functional.avg_pool2d(colour.reshape(60, 60, 3).permute(2, 0, 1), 3).permute(1, 2, 0)
    torch.testing.assert_close(seen[..., :3] * seen[..., 3:] + 1 - seen[..., 3:], expected, atol=1e-4, rtol=0)


def test_no_view_is_in_both_splits_and_none_is_from_below():
    train, test = hemisphere(60), hemisphere(12, turn=solids.TEST_TURN)
    gaps = (train[:, None, :, 3] - test[None, :, :, 3]).norm(dim=2)
    assert float(gaps.min()) > 0.33
    assert float(torch.cat([train, test])[:, 2, 3].min()) > 0
    torch.testing.assert_close(train[:, :, 3].norm(dim=1), torch.full((60,), 4.0))


def test_written_scenes_are_read_back_as_they_were_traced(tmp_path):
    write_scene(tmp_path / "solids", size=16, views=2, test_views=1)
    scene = read_blender(tmp_path / "solids")
    assert (len(scene.train), len(scene.test)) == (2, 1)
    for view, pose in zip(scene.train.images, hemisphere(2), strict=True):
        seen = picture(pose, 16)
        expected = seen[..., :3] * seen[..., 3:] + 1 - seen[..., 3:]
        torch.testing.assert_close(view, expected, atol=1.01 / 255, rtol=0)
    assert scene.train.focal == pytest.approx(8 / math.tan(0.6911112 / 2))
    with Image.open(tmp_path / "solids" / "train" / "r_0.png") as image:
        assert (image.mode, image.size) == ("RGBA", (16, 16))


def test_the_same_parameters_give_the_same_files(tmp_path):
    for name in ("one", "other"):
        write_scene(tmp_path / name, size=8, views=2, test_views=1)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 5
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)


def test_an_interrupted_scene_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def breaks(pose, size):
        calls.append(pose)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return picture(pose, size)

    monkeypatch.setattr(solids, "picture", breaks)
    with pytest.raises(KeyboardInterrupt):
        write_scene(tmp_path / "solids", size=8, views=5, test_views=1)
    assert not list(tmp_path.iterdir())


def test_the_scene_is_traced_once_for_each_size(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path))
    monkeypatch.setattr(solids, "picture", lambda pose, size: torch.zeros(size, size, 4))
    small, large = cached_scene(4), cached_scene(6)
    assert small != large
    monkeypatch.setattr(solids, "picture", lambda pose, size: pytest.fail("traced again"))
    assert cached_scene(4) == small
    frames = json.loads((small / "transforms_train.json").read_text())["frames"]
    assert len(frames) == 60


def test_the_command_writes_a_scene_and_refuses_a_folder_that_has_something(tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "made"), "--size", "8", "--views", "3", "--test-views", "1"]
    with pytest.raises(SystemExit) as done:
        cli.run(Config, procedural.main, arguments)
    assert done.value.code == 0
    assert "3 training and 1 test views of 8x8" in capsys.readouterr().out
    assert len(read_blender(tmp_path / "made").train) == 3
    with pytest.raises(SystemExit) as refused:
        cli.run(Config, procedural.main, arguments)
    assert refused.value.code == 2
    assert "is not empty" in capsys.readouterr().err


def test_sizes_and_counts_below_one_are_errors():
    with pytest.raises(UserError, match="--views 0: give at least 1"):
        Config(out="x", views=0)
