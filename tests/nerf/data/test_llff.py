import numpy as np
import pytest
import torch

from harness.errors import UserError
from nerf.data.llff import read_llff
from nerf.data.load import load_scene
from nerf.scene.rays import training_rays, view_rays
from tests.nerf.data.scene_files import llff_row, project, write_image, write_llff

X, Y, Z = np.eye(3)


def rows(count=10):
    """Cameras on the x axis that look along -z, content at depths 2 to 10, photographs of 32 x 24."""
    middle = (count - 1) / 2
    return np.stack([llff_row(X, Y, Z, [k - middle, 5.0, 7.0]) for k in range(count)])


def pictures(count=10, height=6, width=8):
    return [np.full((height, width, 3), 10 * k) for k in range(count)]


@pytest.fixture
def folder(tmp_path):
    return write_llff(tmp_path / "toy", rows(), pictures())


def test_cameras_are_scaled_centred_and_in_our_axes(folder):
    scene = read_llff(folder)
    poses = torch.cat([scene.test.poses, scene.train.poses])
    torch.testing.assert_close(poses[:, :, :3], torch.eye(3).expand(10, 3, 3))
    scale = (1 / 0.75) / 2.0
    positions = torch.tensor([k - 4.5 for k in (0, 8, 1, 2, 3, 4, 5, 6, 7, 9)]) * scale
    torch.testing.assert_close(poses[:, :, 3], torch.stack([positions, 0 * positions, 0 * positions], dim=1))
    assert scene.train.focal == pytest.approx(10.0)  # 40 pixels of 32, and the pictures have 8


def test_axes_of_turned_cameras_are_kept(tmp_path):
    turned = [llff_row(Y, -X, Z, [0, 0, 0]), llff_row(X, Y, Z, [0, 0, 0]), llff_row(-Y, X, Z, [0, 0, 0])]
    scene = read_llff(write_llff(tmp_path / "toy", np.stack(turned), pictures(3)))
    first, second, third = (pose[:, :3] for pose in (scene.test.poses[0], *scene.train.poses))
    torch.testing.assert_close(second, torch.eye(3))  # the average of the three
    torch.testing.assert_close(first, torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]))
    torch.testing.assert_close(third, first.T)


def test_rays_are_normalised_as_paper_and_pencil_say(folder):
    scene = read_llff(folder)
    rays = view_rays(scene, scene.train, 4)  # the sixth camera, at x = 0.5 * 2 / 3
    assert scene.train.names[4] == "image005"
    x, y = (0.5 - 4) / 10, (3 - 0.5) / 10  # of the upper left pixel at depth 1
    position = 0.5 * 2 / 3
    at_near = [(position + x) * 10 / 4, y * 10 / 3, -1]
    at_infinity = [x * 10 / 4, y * 10 / 3, 1]
    torch.testing.assert_close(rays.origins[0], torch.tensor(at_near))
    torch.testing.assert_close(rays.origins[0] + rays.directions[0], torch.tensor(at_infinity))
    assert (scene.near, scene.far, scene.ndc, scene.white_background) == (0.0, 1.0, True, False)


def test_every_eighth_view_is_a_test_and_pictures_belong_to_their_cameras(folder):
    scene = read_llff(folder)
    assert scene.test.names == ("image000", "image008")
    assert scene.train.names == tuple(f"image00{k}" for k in (1, 2, 3, 4, 5, 6, 7, 9))
    for name, image in zip(scene.train.names, scene.train.images, strict=True):
        torch.testing.assert_close(image, torch.full((6, 8, 3), 10 * int(name[-1]) / 255))


def test_pictures_of_a_quarter_come_first_and_those_that_suffice_for_a_size(folder):
    for name, factor in (("images", 4), ("images_8", 0.5)):
        for k in range(10):
            write_image(folder / name / f"p{k}.png", np.full((int(6 * factor), int(8 * factor), 3), 7))
    for size, width, name in ((None, 8, "image001"), (4, 4, "p1"), (8, 8, "image001"), (16, 16, "p1")):
        scene = read_llff(folder, size)
        assert (scene.train.width, scene.train.names[0]) == (width, name)
        assert scene.train.focal == pytest.approx(40 * width / 32)


def test_bounds_hold_all_rays_of_all_cameras(folder):
    scene = read_llff(folder)
    for rays in (training_rays(scene)[0], view_rays(scene, scene.test, 0)):
        for t in (0.0, 0.3, 1.0):
            points = rays.origins + t * rays.directions
            assert bool(((points >= scene.bounds[0]) & (points <= scene.bounds[1])).all())
    widest = (4.5 * 2 / 3 + 0.4) * 10 / 4  # the outermost camera's outermost ray where it starts
    assert scene.bounds[1, 0].item() == pytest.approx(widest, rel=0.01)


def cut(folder, row=None, **change):
    table = np.load(folder / "poses_bounds.npy")
    table[row, change["column"]] = change["value"]
    np.save(folder / "poses_bounds.npy", table)


BROKEN = {
    "no-poses": (lambda f: (f / "poses_bounds.npy").unlink(), r"cannot read .*poses_bounds\.npy: No such file"),
    "text": (lambda f: (f / "poses_bounds.npy").write_bytes(b"poses"), r"poses_bounds\.npy is not an array"),
    "empty": (lambda f: (f / "poses_bounds.npy").write_bytes(b""), r"poses_bounds\.npy is not an array"),
    "shape": (lambda f: np.save(f / "poses_bounds.npy", rows()[:, :15]), r"holds float64 \[10, 15\], not"),
    "objects": (
        lambda f: np.save(f / "poses_bounds.npy", np.array([{}, []], dtype=object)),
        r"poses_bounds\.npy is not an array",
    ),
    "one": (lambda f: np.save(f / "poses_bounds.npy", rows(1)), r"poses_bounds\.npy has 1 rows"),
    "count": (lambda f: np.save(f / "poses_bounds.npy", rows(9)), r"images_4 holds 10 pictures where .* 9 rows"),
    "nan": (lambda f: cut(f, row=3, column=1, value=np.nan), r"poses_bounds\.npy: row 3"),
    "depth": (lambda f: cut(f, row=2, column=15, value=20.0), r"poses_bounds\.npy: row 2"),
    "focal": (lambda f: cut(f, row=0, column=14, value=0.0), r"poses_bounds\.npy: row 0"),
    "aspect": (
        lambda f: cut(f, row=0, column=4, value=40.0),
        r"image000\.png is 8x6, which is not the shape of.*32x40",
    ),
    "no-pictures": (
        lambda f: (f / "images_4").rename(f / "photos"),
        r"no pictures in images_4, images_8, images.*but photos, poses",
    ),
    "size": (lambda f: write_image(f / "images_4/image004.png", [[[1, 2, 3]]]), r"image004\.png is 1x1 where"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_missing_or_broken_is_named(case, folder):
    harm, message = BROKEN[case]
    harm(folder)
    with pytest.raises(UserError, match=message):
        read_llff(folder)


@pytest.mark.data
def test_fern_is_held_out_scaled_and_centred_as_published(data_dir):
    scene = load_scene("llff", "fern", data_dir)
    assert (len(scene.train), len(scene.test)) == (17, 3)
    assert scene.test.names == ("image000", "image008", "image016")
    assert (scene.train.height, scene.train.width) == (378, 504)
    assert scene.train.focal == pytest.approx(407.57, abs=0.01)
    poses = torch.cat([scene.train.poses, scene.test.poses])
    torch.testing.assert_close(poses[:, :, 3].mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.linalg.det(poses[:, :, :3]), torch.ones(20), atol=1e-4, rtol=0)


@pytest.mark.data
def test_fern_seen_from_its_neighbours_fits_best_at_the_depths_that_were_stored(data_dir):
    """Planes at several depths carry training views over to a test view; with a wrong axis, infinity would fit best."""
    scene = load_scene("llff", "fern", data_dir, size=100)
    views, truth, pose = scene.train, scene.test.images[1], scene.test.poses[1]
    y, x = torch.meshgrid(torch.arange(views.height) + 0.5, torch.arange(views.width) + 0.5, indexing="ij")
    focal = float(views.focal[0, 0])
    ahead = torch.stack([(x - views.width / 2), -(y - views.height / 2), torch.full_like(x, -focal)], dim=-1)
    directions = (ahead / focal).reshape(-1, 3) @ pose[:, :3].T
    nearest = (views.poses[:, :, 3] - pose[:, 3]).norm(dim=1).argsort()[:4]
    errors = {}
    for depth in (1.4, 2.0, 3.0, 4.0, 6.0, 1000.0):
        found = []
        for index in nearest:
            pixel, _ = project(pose[:, 3] + depth * directions, views.poses[index], focal, *truth.shape[:2])
            grid = (2 * pixel / torch.tensor([views.width, views.height]) - 1).float().reshape(1, *truth.shape[:2], 2)
            seen = torch.nn.functional.grid_sample(
                views.images[index].permute(2, 0, 1)[None], grid, align_corners=False
            )
            inside = (grid[0].abs() <= 1).all(dim=-1)
            found.append((seen[0].permute(1, 2, 0) - truth)[inside].abs().mean())
        errors[depth] = float(torch.stack(found).mean())
    assert min(errors.values()) < 0.8 * errors[1000.0], errors
    assert errors[1000.0] > errors[6.0] > errors[4.0], errors
