"""The network: what it computes, and which signal each of its layers receives."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from nerf.field.encoding import encode
from nerf.field.fields import Fields, Rendering
from nerf.field.network import Architecture, Join, Network
from tinydfa import attach

SMALL = Architecture(depth=4, width=10, skip_every=2, position_frequencies=3, view_frequencies=2)


def made(architecture=SMALL, seed=0):
    torch.manual_seed(seed)
    return Network(architecture)


def data(rays=3, samples=4):
    torch.manual_seed(1)
    points = torch.randn(rays * samples, 3)
    views = F.normalize(torch.randn(rays, 3), dim=1)
    return points, views


def trunk(network, points):
    """Outputs of all layers from the weights alone, inputs side by side where the position joins: layer 3 of SMALL."""
    position = encode(points, 3)
    w = dict(network.named_parameters())
    h = [torch.relu(position @ w["layers.0.weight"].T + w["layers.0.bias"])]
    for layer in (1, 2):
        h.append(torch.relu(h[-1] @ w[f"layers.{layer}.weight"].T + w[f"layers.{layer}.bias"]))
    whole = torch.cat([w["layers.3.inner.weight"], w["layers.3.extra.weight"]], dim=1)
    h.append(torch.relu(torch.cat([h[-1], position], dim=1) @ whole.T + w["layers.3.inner.bias"]))
    return h


def top(network, h, views):
    w = dict(network.named_parameters())
    feature = torch.relu(h @ w["feature.weight"].T + w["feature.bias"])
    whole = torch.cat([w["view.inner.weight"], w["view.extra.weight"]], dim=1)
    seen = torch.relu(torch.cat([feature, encode(views, 2)], dim=1) @ whole.T + w["view.inner.bias"])
    colour = seen @ w["colour.weight"].T + w["colour.bias"]
    return feature, seen, torch.cat([colour, h @ w["density.weight"].T + w["density.bias"]], dim=1)


def test_the_network_is_the_published_one_written_by_hand():
    network, (points, views) = made(), data()
    expected = top(network, trunk(network, points)[-1], views.repeat_interleave(4, dim=0))[-1]
    torch.testing.assert_close(network(points, views), expected)


def test_a_named_ray_is_the_same_as_rays_in_order():
    network, (points, views) = made(), data()
    ray = torch.arange(3).repeat_interleave(4)
    shuffled = torch.randperm(12)
    expected = network(points, views)[shuffled]
    torch.testing.assert_close(network(points[shuffled], views, ray[shuffled]), expected)
    assert network(points[:0], views, ray[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    ("depth", "skip", "joining"), [(4, 4, []), (8, 4, [5]), (10, 4, [5, 9]), (6, 2, [3, 5]), (1, 4, [])]
)
def test_the_position_joins_where_the_release_has_it(depth, skip, joining):
    network = made(Architecture(depth=depth, width=8, skip_every=skip))
    assert len(network.layers) == depth
    assert [number for number, layer in enumerate(network.layers) if isinstance(layer, Join)] == joining


def test_sizes_are_those_of_the_released_networks():
    count = sum(parameter.numel() for parameter in Network(Architecture(depth=4, width=128)).parameters())
    assert count == 84_548
    tiny = Network(Architecture(depth=2, width=128, views=False))
    assert [tuple(p.shape) for p in tiny.parameters() if p.dim() == 2] == [(128, 63), (128, 128), (4, 128)]


def test_a_join_starts_like_one_layer_on_both_inputs():
    torch.manual_seed(0)
    join, one = Join(60, 40, 300), torch.nn.Linear(100, 300)
    whole = torch.cat([join.inner.weight, join.extra.weight], dim=1).detach()
    assert whole.abs().max() <= 0.1 + 1e-6
    assert whole.std().item() == pytest.approx(one.weight.std().item(), rel=0.02)
    assert join.inner.bias.std().item() == pytest.approx(one.bias.std().item(), rel=0.15)


def test_hidden_gradients_are_the_projected_error_of_every_sample():
    """Every hidden weight, the two halves of a join included, from the rule by hand."""
    network, (points, views) = made(), data()
    attachment = attach(network, "dfa", seed=3)
    target = torch.randn(12, 4)
    F.mse_loss(network(points, views), target).backward()
    feedback = attachment.head.feedback_matrix
    assert feedback.shape == (4, 10)

    with torch.no_grad():
        position, spread = encode(points, 3), encode(views, 2).repeat_interleave(4, dim=0)
        h = trunk(network, points)
        feature, seen, output = top(network, h[-1], views.repeat_interleave(4, dim=0))
        error = 2 * (output - target) / output.numel()
        signal = error @ feedback / 10**0.5
    expected = {}
    for layer, below in enumerate([position, h[0], h[1]]):
        expected[f"layers.{layer}.weight"] = (signal * (h[layer] > 0)).T @ below
    last = signal * (h[3] > 0)
    expected |= {"layers.3.inner.weight": last.T @ h[2], "layers.3.extra.weight": last.T @ position}
    expected |= {"layers.3.inner.bias": last.sum(0), "feature.weight": (signal * (feature > 0)).T @ h[3]}
    narrow = signal[:, :5] * (seen > 0)
    expected |= {"view.inner.weight": narrow.T @ feature, "view.extra.weight": narrow.T @ spread}
    expected |= {"colour.weight": error[:, :3].T @ seen, "density.weight": error[:, 3:].T @ h[3]}
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_with_the_error_at_the_trunk_all_above_is_exact_and_below_is_its_projection():
    network, (points, views) = made(replace(SMALL, error_at="trunk")), data()
    attachment = attach(network, "dfa", seed=3, output=network.output)
    assert list(attachment.points) == [f"points.{i}" for i in range(4)]
    target = torch.randn(12, 4)
    F.mse_loss(network(points, views), target).backward()
    feedback = attachment.head.feedback_matrix
    assert feedback.shape == (10, 10)

    position, h = encode(points, 3), trunk(network, points)
    below = [layer.detach() for layer in h]
    upper = below[3].requires_grad_()
    weights = {name: p for name, p in network.named_parameters() if not name.startswith("layers")}
    loss = F.mse_loss(top(network, upper, views.repeat_interleave(4, dim=0))[-1], target)
    error, *exact = torch.autograd.grad(loss, [upper, *weights.values()])
    expected = dict(zip(weights, exact, strict=True))
    signal = error @ feedback / 10**0.5
    for layer, under in enumerate([position, below[0], below[1]]):
        expected[f"layers.{layer}.weight"] = (signal * (below[layer] > 0)).T @ under
    last = error * (upper > 0)  # a point where the error is taken gets the error itself
    expected |= {"layers.3.inner.weight": last.T @ below[2], "layers.3.extra.weight": last.T @ position}
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_every_hidden_layer_has_a_point_and_shallow_trains_the_outputs_alone():
    network, (points, views) = made(), data()
    attachment = attach(network, "shallow")
    assert list(attachment.points) == [f"points.{i}" for i in range(4)] + ["feature_point", "view_point"]
    network(points, views).square().mean().backward()
    trained = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert trained == {"colour", "density"}


@pytest.mark.parametrize("method", ["bp", "dfa", "sdfa", "tdfa", "fa", "usf", "brsf", "frsf"])
def test_every_parameter_is_trained_by(method):
    network, (points, views) = made(), data()
    attach(network, method)
    network(points, views).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("views", [True, False])
def test_no_seed_starts_with_a_field_that_is_empty_everywhere(views):
    shape = Architecture(depth=4, width=128, views=views)
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) * 3 - 1.5
    for seed in range(10):
        density = made(shape, seed)(points, torch.tensor([[0.0, 0.0, 1.0]]))[:, 3]
        assert (density > 0).all(), seed


def test_no_fine_samples_means_no_fine_network():
    assert list(Fields(SMALL, Rendering(samples_fine=0)).networks()) == ["coarse"]
    assert list(Fields(SMALL, Rendering(samples_fine=2)).networks()) == ["coarse", "fine"]
