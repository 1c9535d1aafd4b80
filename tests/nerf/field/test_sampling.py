"""Depths along a ray against the densities they are drawn from."""

import pytest
import torch

from nerf.field.sampling import Draws, draw_depths, even_depths, finer_depths


def draws(rays, seed=0):
    return Draws(torch.Generator().manual_seed(seed), rays)


def test_jittered_depths_stay_in_order_and_each_in_its_own_part_of_the_ray():
    near, far = torch.tensor([[2.0], [0.0]]).expand(2, 1), torch.tensor([[6.0], [1.0]])
    even = even_depths(near, far, 9)
    drawn = even_depths(near, far, 9, draws(2))
    step = even[:, 1:2] - even[:, :1]
    assert (drawn.diff(dim=1) > 0).all()
    assert ((drawn - even).abs() <= step / 2 + 1e-6).all()
    assert (drawn != even).float().mean() > 0.9


def test_jittered_depths_cover_the_ray_evenly():
    near, far = torch.zeros(20_000, 1), torch.ones(20_000, 1)
    drawn = even_depths(near, far, 5, draws(20_000)).flatten()
    counts = torch.histc(drawn, 5, 0, 1) / len(drawn)
    # the outer of five places have half a part each: [0, 1/8], [1/8, 3/8], ..., [7/8, 1], a fifth of the draws each
    expected = torch.tensor([0.26, 0.16, 0.16, 0.16, 0.26])
    torch.testing.assert_close(counts, expected, atol=0.01, rtol=0)


def test_drawn_depths_have_the_density_of_the_weights():
    edges = torch.tensor([0.0, 1.0, 3.0, 4.0, 10.0]).expand(2000, 5)
    weights = torch.tensor([1.0, 2.0, 0.0, 5.0]).expand(2000, 4)
    drawn = draw_depths(edges, weights, 50, draws(2000))
    share = [((drawn >= a) & (drawn < b)).float().mean().item() for a, b in ((0, 1), (1, 3), (3, 4), (4, 10))]
    assert share == pytest.approx([0.125, 0.25, 0.0, 0.625], abs=0.01)
    inside = drawn[(drawn > 4) & (drawn < 10)]  # even within one part: mean and variance of a uniform density
    assert inside.mean().item() == pytest.approx(7.0, abs=0.05)
    assert inside.var().item() == pytest.approx(36 / 12, rel=0.03)


def test_without_draws_depths_are_quantiles():
    edges = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    weights = torch.tensor([[1.0, 1.0, 2.0]])
    found = draw_depths(edges, weights, 9)[0]
    expected = torch.tensor([0, 0.5, 1, 1.5, 2, 2.25, 2.5, 2.75, 3])  # P(x) is x/4 up to 2, then 1/2 + (x-2)/2
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_ray_that_saw_nothing_is_sampled_evenly():
    edges = torch.linspace(2, 6, 9)[None]
    found = draw_depths(edges, torch.zeros(1, 8), 5)
    torch.testing.assert_close(found, torch.tensor([[2.0, 3.0, 4.0, 5.0, 6.0]]), atol=1e-4, rtol=0)


def test_drawn_depths_never_leave_the_edges():
    torch.manual_seed(0)
    edges = torch.rand(500, 17).cumsum(dim=1)
    weights = torch.rand(500, 16) ** 20  # most of them next to nothing
    for drawn in (draw_depths(edges, weights, 64), draw_depths(edges, weights, 64, draws(500))):
        assert ((drawn >= edges[:, :1]) & (drawn <= edges[:, -1:])).all()


def test_finer_depths_are_the_coarse_ones_and_more_at_the_surface():
    depths = torch.linspace(2, 6, 21)[None]  # a step of 0.2
    weights = torch.zeros(1, 21)
    weights[0, 10] = 1.0  # at depth 4: between 3.9 and 4.1
    found = finer_depths(depths, weights, 40, draws(1))
    assert found.shape == (1, 61)
    assert (found.diff(dim=1) >= 0).all()
    assert all((found - depth).abs().min() < 1e-6 for depth in depths[0])
    assert ((found > 3.89) & (found < 4.11)).sum() >= 39
