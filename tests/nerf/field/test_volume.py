"""Volume rendering against scenes whose picture is known in closed form."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from nerf.field.fields import Fields, Rendering
from nerf.field.network import Architecture
from nerf.field.volume import composite, render_rays, render_view
from nerf.scene.rays import Rays
from tests.float64 import float64

SMALL = Architecture(depth=2, width=16, position_frequencies=3, view_frequencies=2)
WHITE, BLACK = Rendering(white_background=True), Rendering(white_background=False)


def logit(values):
    return torch.logit(torch.tensor(values))


def raw_of(density, colour):
    """Outputs of a network for densities ``[R, S]`` and one colour."""
    return torch.cat([logit(colour).expand(*density.shape, 3), density[..., None]], dim=-1)


def bundle(rays=6, near=2.0, far=6.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    origins, directions = (torch.randn(rays, 3, generator=generator) for _ in range(2))
    views = directions / directions.norm(dim=1, keepdim=True)
    return Rays(origins, directions, views, torch.full((rays, 1), near), torch.full((rays, 1), far))


def test_a_slab_of_constant_density_takes_the_light_by_its_thickness():
    depths = torch.linspace(2, 6, 401)[None]
    inside = ((depths >= 3) & (depths < 5)).float()  # 2 long, in units of a direction of length 3
    directions = torch.tensor([[0.0, 0.0, -3.0]])
    seen, weights = composite(raw_of(0.25 * inside, [0.2, 0.5, 0.9]), depths, directions, BLACK)
    opacity = 1 - math.exp(-0.25 * 2 * 3)
    assert seen.opacity.item() == pytest.approx(opacity, rel=1e-3)
    torch.testing.assert_close(seen.colour[0], opacity * torch.tensor([0.2, 0.5, 0.9]), rtol=1e-3, atol=0)
    assert weights.sum().item() == pytest.approx(seen.opacity.item())
    # with u the way in from 3, light comes with density k exp(-k u) / (1 - exp(-2 k)) along it, k = 0.75
    k = 0.75
    mean = 3 + 1 / k - 2 * math.exp(-2 * k) / (1 - math.exp(-2 * k))
    assert seen.depth.item() == pytest.approx(mean, abs=0.01)


def test_a_white_background_fills_what_the_slab_lets_through():
    depths = torch.linspace(0, 1, 101)[None]
    inside = (depths < 0.5).float()
    seen, _ = composite(raw_of(2 * inside, [0.2, 0.5, 0.9]), depths, torch.tensor([[1.0, 0.0, 0.0]]), WHITE)
    through = math.exp(-1)
    expected = (1 - through) * torch.tensor([0.2, 0.5, 0.9]) + through
    torch.testing.assert_close(seen.colour[0], expected, rtol=1e-2, atol=0)


def test_an_opaque_surface_is_seen_where_it_is_and_nothing_behind_it():
    depths = torch.linspace(2, 6, 41)[None]
    raw = raw_of((depths >= 3.95).float() * 1e4, [0.1, 0.6, 0.3])
    raw[0, 25:, :3] = 5.0  # another colour, hidden
    seen, weights = composite(raw, depths, torch.tensor([[0.0, 1.0, 0.0]]), WHITE)
    assert seen.depth.item() == pytest.approx(4.0, abs=1e-4)
    assert seen.opacity.item() == pytest.approx(1.0)
    torch.testing.assert_close(seen.colour[0], torch.tensor([0.1, 0.6, 0.3]))
    assert weights[0, 20].item() == pytest.approx(1.0)


def test_empty_space_shows_the_background_and_has_no_depth():
    depths = torch.linspace(2, 6, 41)[None]
    for white in (True, False):
        seen, weights = composite(
            raw_of(-torch.ones(1, 41), [0.5] * 3), depths, torch.ones(1, 3), WHITE if white else BLACK
        )
        assert seen.colour.tolist() == [[float(white)] * 3]
        assert (seen.depth.item(), seen.opacity.item(), weights.sum().item()) == (0.0, 0.0, 0.0)


def test_density_at_the_last_sample_reaches_to_infinity():
    depths = torch.linspace(2, 6, 5)[None]
    density = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.1]])
    assert composite(raw_of(density, [0.5] * 3), depths, torch.ones(1, 3), WHITE)[0].opacity.item() == 1.0


def test_softplus_is_of_the_output_less_one_and_the_last_sample_is_as_long_as_the_one_before():
    depths, raw = torch.tensor([[2.0, 3.0, 5.0]]), torch.randn(1, 3, 4)
    settings = Rendering(density="softplus", white_background=False)
    seen, _ = composite(raw, depths, torch.tensor([[0.0, 3.0, 4.0]]), settings)
    outputs = raw[0, :, 3].tolist()
    thickness = sum(math.log(1 + math.exp(outputs[i] - 1)) * 5 * length for i, length in enumerate((1, 2, 2)))
    assert seen.opacity.item() == pytest.approx(1 - math.exp(-thickness), rel=1e-5)


def test_weights_are_a_share_of_the_light():
    torch.manual_seed(0)
    depths = torch.rand(50, 30).cumsum(dim=1)
    seen, weights = composite(torch.randn(50, 30, 4) * 5, depths, torch.randn(50, 3), WHITE)
    assert (weights >= 0).all()
    assert (weights.sum(dim=1) <= 1 + 1e-6).all()
    assert ((seen.colour >= 0) & (seen.colour <= 1 + 1e-6)).all()


class Ball(nn.Module):
    """A red ball of radius 1 at the origin; outside nothing."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, points, views, ray=None):
        self.asked += len(points)
        inside = (points.norm(dim=1, keepdim=True) < 1).float()
        return torch.cat([logit([0.9, 0.1, 0.1]).expand(len(points), 3), 50 * inside - 1e-3], dim=1)


def ball(**settings):
    fields = Fields(SMALL, Rendering(**({"samples_coarse": 64, "samples_fine": 128} | settings)))
    fields.coarse, fields.fine = Ball(), Ball()
    return fields


def straight(heights):
    """Rays along -z from z = 4."""
    origins = torch.tensor([[0.0, height, 4.0] for height in heights])
    directions = torch.tensor([[0.0, 0.0, -1.0]]).expand_as(origins)
    ends = torch.ones(len(origins), 1)
    return Rays(origins, directions, directions, 2 * ends, 6 * ends)


def test_a_ball_is_seen_at_its_surface_more_sharply_by_the_fine_network():
    heights = [0.0, 0.6, 0.9, 1.1]
    seen = render_view(ball(), straight(heights))
    coarse = render_view(ball(samples_fine=0, samples_coarse=64), straight(heights))
    for row, height in enumerate(heights[:3]):
        mean = 4 - math.sqrt(1 - height**2) + 1 / 50  # light of density 50 comes from 1/50 behind the surface
        assert seen.depth[row].item() == pytest.approx(mean, abs=0.002)
        assert abs(seen.depth[row] - mean) < abs(coarse.depth[row] - mean)
    assert seen.opacity.tolist() == pytest.approx([1, 1, 1, 0], abs=1e-3)
    torch.testing.assert_close(seen.colour[0], torch.tensor([0.9, 0.1, 0.1]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen.colour[3], torch.ones(3))


def test_networks_are_not_asked_about_empty_places_and_the_picture_stays():
    rays = straight([-1.9 + 0.04 * number for number in range(96)])
    everywhere, skipping = ball(), ball()
    skipping.occupied = lambda points: points.norm(dim=-1) < 1.1
    expected, found = render_view(everywhere, rays), render_view(skipping, rays)
    for name in ("colour", "depth", "opacity"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)
    assert skipping.fine.asked < everywhere.fine.asked * 0.7
    assert skipping.coarse.asked < everywhere.coarse.asked * 0.4


@pytest.mark.parametrize("method", ["bp", "dfa", "shallow"])
def test_skipping_trains_like_asking_when_what_is_skipped_has_no_density(method):
    from tinydfa import attach

    gradients = []
    for skip in (False, True):
        torch.manual_seed(0)
        fields = Fields(SMALL, Rendering(samples_coarse=16, samples_fine=0))
        with torch.no_grad():
            fields.coarse.density.weight.mul_(20)
        known = copy.deepcopy(fields.coarse)

        def dense(points, known=known):
            with torch.no_grad():  # the direction does not matter
                return (
                    known(points.flatten(0, 1), torch.tensor([[0.0, 0.0, 1.0]]))[:, 3].unflatten(0, points.shape[:2])
                    > 0
                )

        attach(fields.coarse, method, seed=1)
        rays = bundle(20)
        found = dense(rays.origins[:, None] + rays.directions[:, None] * torch.linspace(2, 6, 16)[:, None])
        assert 0 < found.sum() < found.numel()
        if skip:
            fields.occupied = dense
        fields.zero_grad()
        render_rays(fields, rays).colour.square().mean().backward()
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad for p in fields.coarse.parameters()])
    for asked, skipped in zip(*gradients, strict=True):
        torch.testing.assert_close(skipped, asked)


def test_rays_that_meet_nothing_see_the_background_and_train_nothing():
    fields, rays = Fields(SMALL, Rendering(samples_coarse=8, samples_fine=8)), bundle(5)
    fields.occupied = lambda points: torch.zeros(points.shape[:-1], dtype=torch.bool)
    seen = render_rays(fields, rays)
    assert (seen.colour == 1).all()
    assert (seen.coarse == 1).all()
    assert not seen.depth.any()
    assert not seen.opacity.any()
    seen.colour.square().sum().backward()
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in fields.parameters())


def test_a_picture_does_not_depend_on_the_chunk():
    torch.manual_seed(0)
    with float64():  # where there is little weight, the depths of fine samples hang on its last digits
        fields, rays = Fields(SMALL, Rendering(samples_coarse=8, samples_fine=8)), bundle(23)
        whole, parts = render_view(fields, rays, chunk=100), render_view(fields, rays, chunk=5)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other)
    assert whole.colour.shape == whole.coarse.shape == (23, 3)
    assert whole.depth.shape == whole.opacity.shape == (23,)
    assert not whole.colour.requires_grad


def test_dual_rendering_is_by_the_mean_of_both_networks_outputs():
    torch.manual_seed(0)
    fields, rays = Fields(SMALL, Rendering(samples_coarse=8, samples_fine=8)), bundle()
    single = render_view(fields, rays)
    fields.rendering = replace(fields.rendering, dual=True)
    dual = render_view(fields, rays)
    assert (dual.colour - single.colour).abs().max() > 1e-4
    fields.fine.load_state_dict(fields.coarse.state_dict())  # two equal networks: nothing to average
    same = render_view(fields, rays)
    fields.rendering = replace(fields.rendering, dual=False)
    torch.testing.assert_close(render_view(fields, rays).colour, same.colour)


def test_the_fine_network_does_not_train_the_coarse_one():
    torch.manual_seed(0)
    fields = Fields(SMALL, Rendering(samples_coarse=8, samples_fine=8))
    render_rays(fields, bundle(), torch.Generator()).colour.sum().backward()
    assert all(parameter.grad is None for parameter in fields.coarse.parameters())
    assert all(parameter.grad is not None for parameter in fields.fine.parameters())


def test_noise_is_added_in_training_only():
    torch.manual_seed(0)
    quiet = Fields(SMALL, Rendering(samples_coarse=8, samples_fine=8))
    noisy = Fields(SMALL, Rendering(samples_coarse=8, samples_fine=8, noise=1.0))
    noisy.load_state_dict(quiet.state_dict())
    rays = bundle()
    torch.testing.assert_close(render_rays(noisy, rays).colour, render_rays(quiet, rays).colour)
    draws = [render_rays(fields, rays, torch.Generator().manual_seed(1)).coarse for fields in (quiet, noisy)]
    assert (draws[0] - draws[1]).abs().max() > 1e-3


def test_the_same_generator_gives_the_same_picture():
    torch.manual_seed(0)
    fields, rays = Fields(SMALL, Rendering(samples_coarse=8, samples_fine=8, noise=1.0)), bundle()
    first, again, other = (
        render_rays(fields, rays, torch.Generator().manual_seed(seed)).colour.tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("skips", [False, True])
def test_rays_that_are_shared_see_what_they_see_when_one_process_renders_all(skips):
    torch.manual_seed(0)
    with float64():
        fields = Fields(SMALL, Rendering(samples_coarse=6, samples_fine=5, white_background=True, noise=1.0))
        rays = Rays(*(part.double() for part in bundle(11)))
        fields.occupied = (lambda points: points[..., 0] > 0.2) if skips else None
        whole = render_rays(fields, rays, torch.Generator().manual_seed(3))
        assert (whole.opacity == 0).sum() == (4 if skips else 0)
        for rank in range(3):
            share = slice(rank, None, 3)
            own = render_rays(fields, rays, torch.Generator().manual_seed(3), share)
            for part, expected in zip(own, whole, strict=True):
                torch.testing.assert_close(part, expected[share], rtol=1e-12, atol=1e-12)
