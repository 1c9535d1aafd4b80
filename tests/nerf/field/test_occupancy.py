import math

import pytest
import torch

from nerf.data.solids import hemisphere, trace
from nerf.field.occupancy import OccupancyGrid
from nerf.scene.lens import pinhole
from nerf.scene.rays import camera_rays

BOUNDS = torch.tensor([[-1.5, -1.5, -1.5], [1.5, 1.5, 1.5]])
STEP = 4 / 64


def ball(points, density=50.0):
    """A ball of radius 0.5 around (0.5, 0, 0)."""
    return density * ((points - torch.tensor([0.5, 0.0, 0.0])).norm(dim=1) < 0.5)


def trained(density=ball, updates=16, **options):
    grid = OccupancyGrid(BOUNDS, 32, step=STEP, **{"warmup": 4, **options})
    for _ in range(updates):
        grid.update(density)
    return grid


def some_points(count=20_000, seed=0):
    return 3 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 1.5


def test_no_point_where_something_is_counts_as_empty():
    grid, points = trained(), some_points(100_000)
    assert bool(grid(points)[ball(points) > 0].all())


def test_most_of_the_space_where_nothing_is_counts_as_empty():
    grid, points = trained(), some_points()
    assert 4 / 3 * math.pi * 0.5**3 / 27 == pytest.approx(0.0194, abs=1e-4)  # of the box that is ball
    assert grid.share < 0.05
    assert float(grid(points).float().mean()) == pytest.approx(grid.share, abs=0.01)


def test_a_cell_next_to_a_full_one_is_worth_asking_about_and_no_other():
    cell = 3 / 32
    lower = torch.tensor([10.0, 20, 5]) * cell - 1.5

    def one_cell(points):
        return 100.0 * ((points >= lower) & (points < lower + cell)).all(dim=1)

    grid = trained(one_cell)
    expected = torch.zeros(32, 32, 32, dtype=torch.bool)
    expected[9:12, 19:22, 4:7] = True
    assert torch.equal(grid.full.reshape(32, 32, 32), expected)
    middles = (torch.cartesian_prod(*[torch.arange(32.0)] * 3) + 0.5) * cell - 1.5
    assert torch.equal(grid(middles), expected.flatten())


def test_everything_counts_as_full_during_the_warm_up():
    grid = OccupancyGrid(BOUNDS, 8, step=STEP, warmup=3)
    far_away = torch.full((1, 3), 100.0)
    for _ in range(3):
        assert bool(grid(some_points(100)).all())
        assert grid(far_away).item() is True
        grid.update(ball)
    assert not bool(grid(some_points(100)).all())


def test_outside_of_the_bounds_there_is_nothing():
    grid = trained(lambda points: torch.ones(len(points)))
    assert grid(torch.tensor([[1.49, 0, 0], [1.51, 0, 0], [0, -1.6, 0], [1.5, 1.5, 1.5]])).tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_an_old_maximum_fades_and_a_new_one_stays():
    grid = OccupancyGrid(BOUNDS, 4, step=STEP, decay=0.5)
    for density in (8.0, 0.0, 1.0, 3.0):
        grid.update(lambda points, density=density: torch.full((len(points),), density))
    torch.testing.assert_close(grid.maximum, torch.full((64,), 3.0))  # 8, 4, 2, 3
    grid.update(lambda points: torch.zeros(len(points)))
    torch.testing.assert_close(grid.maximum, torch.full((64,), 1.5))


def test_space_that_was_vacated_is_empty_after_a_while():
    grid = trained(updates=8)
    before = grid.share
    for _ in range(150):
        grid.update(lambda points: 50.0 * (points.norm(dim=1) < 0.2))
    assert grid.share < before / 2


def test_fog_below_the_threshold_is_kept_when_there_is_nothing_else():
    faint = -math.log(1 - 0.001) / STEP  # an opacity of 0.001 a sample
    grid = trained(lambda points: torch.full((len(points),), faint))
    assert bool(grid(some_points(1000)).all())
    nothing = trained(lambda points: torch.zeros(len(points)))
    assert bool(nothing(some_points(1000)).all())  # or a field that lost everything could never grow again


def test_what_is_above_the_threshold_is_kept_beside_something_denser():
    grid = trained(lambda points: torch.where(points[:, 0] < 0, 50.0, 2.0))  # opacities of 0.96 and 0.12 a sample
    assert bool(grid(some_points(1000)).all())


def test_fog_below_the_threshold_is_dropped_beside_something_solid():
    faint = -math.log(1 - 0.001) / STEP
    grid = trained(lambda points: ball(points) + faint)
    assert grid.share < 0.05


def test_updates_in_rounds_visit_every_cell_once():
    seen = []

    def count(points):
        seen.append(((points + 1.5) / 3 * 8).floor().long())
        return torch.ones(len(points))

    grid = OccupancyGrid(BOUNDS, 8, step=STEP, rounds=3, warmup=0)
    for _ in range(3):
        grid.update(count)
    cells = torch.cat(seen) @ torch.tensor([64, 8, 1])
    assert sorted(cells.tolist()) == list(range(512))
    assert max(map(len, seen)) <= 171
    assert grid.warmup == 3  # not before every cell was visited


def test_points_of_an_update_are_new_each_time_and_the_same_in_every_process():
    def points_of(updates):
        seen = []
        grid = OccupancyGrid(BOUNDS, 4, step=STEP)
        for _ in range(updates):
            grid.update(lambda points: (seen.append(points), torch.ones(len(points)))[1])
        return seen

    torch.manual_seed(1)
    first = points_of(2)
    state = torch.get_rng_state()
    second = points_of(2)
    assert torch.equal(torch.get_rng_state(), state)  # what training draws does not depend on the grid
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.allclose(first[0], first[1])


def test_a_saved_grid_goes_on_where_it_was_also_inside_another_module():
    whole = trained(updates=9, rounds=2)
    half = trained(updates=5, rounds=2)
    loaded = torch.nn.ModuleDict({"grid": OccupancyGrid(BOUNDS, 32, step=STEP, warmup=4, rounds=2)})
    loaded.load_state_dict({f"grid.{name}": value for name, value in half.state_dict().items()})
    points = some_points()
    assert torch.equal(loaded["grid"](points), half(points))
    for _ in range(4):
        loaded["grid"].update(ball)
    assert torch.equal(loaded["grid"](points), whole(points))
    assert torch.equal(loaded["grid"].maximum, whole.maximum)


def test_an_update_keeps_no_graph():
    weight = torch.ones((), requires_grad=True)
    grid = trained(lambda points: ball(points) * weight)
    assert not grid.maximum.requires_grad


def solid(points):
    """The density of the procedural scene's solids, from rays straight up: a point is inside after an odd crossing."""
    from nerf.data.shapes import SOLIDS

    inside = torch.zeros(len(points), dtype=torch.bool)
    for one in SOLIDS:
        start = points - torch.tensor([0.0, 0.0, 10.0])
        crossing = one.cross(start, torch.tensor([0.0, 0.0, 1.0]).expand_as(start))
        inside |= (crossing.enter < 10) & (crossing.leave > 10)
    return 100.0 * inside


def test_rays_keep_every_sample_in_a_solid_and_lose_most_others():
    grid = OccupancyGrid(BOUNDS, 48, step=STEP, warmup=4)
    for _ in range(12):
        grid.update(solid)
    rays = camera_rays(hemisphere(5)[3], 40, 40, pinhole(40, 40, 55.0), 2.0, 6.0)
    depths = torch.linspace(2, 6, 64).expand(1600, 64)
    points = rays.origins[:, None] + rays.directions[:, None] * depths[..., None]
    mask = grid(points)
    inside = (solid(points.flatten(0, 1)) > 0).unflatten(0, mask.shape)
    assert bool(mask[inside].all())
    assert float(mask.float().mean()) < 0.2
    _, alpha, distance = trace(rays)
    hit = alpha > 0
    at_surface = grid(rays.origins[hit] + rays.directions[hit] * distance[hit][:, None])
    assert bool(at_surface.all())
    assert float(mask.any(dim=1)[~hit].float().mean()) < 0.5  # before the white background no network is asked


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_grid_on_a_gpu_is_the_one_of_the_cpu():
    cpu = trained()
    gpu = OccupancyGrid(BOUNDS.cuda(), 32, step=STEP, warmup=4)
    for _ in range(16):
        gpu.update(lambda points: ball(points.cpu()).cuda())
    points = some_points()
    assert torch.equal(gpu(points.cuda()).cpu(), cpu(points))
