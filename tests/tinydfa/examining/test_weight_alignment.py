"""Weight alignment: angle and norm ratio between W and B, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from tests.tinydfa.nets import Mlp, batch
from tinydfa import DFAError, attach, weight_alignment


def degrees(one, other) -> float:
    one, other = one.detach().double().flatten(), other.detach().double().flatten()
    return math.degrees(math.acos(float((one * other).sum() / (one.square().sum() * other.square().sum()).sqrt())))


@pytest.mark.parametrize("method", ["fa", "frsf", "usf"])
def test_angle_and_ratio_are_those_of_the_weight_and_its_matrix(method):
    net = Mlp()
    attachment = attach(net, method)
    found = weight_alignment(net)
    assert set(found) == {"hidden.0", "hidden.1", "hidden.2", "top"}
    drawn = attachment.state_dict()["layerwise"]
    for name, (angle, ratio) in found.items():
        weight = net.get_submodule(name).weight.detach()
        glorot = (2 / sum(weight.shape)) ** 0.5
        signs = weight.sign()
        back = {"fa": drawn[f"{name}.feedback"], "frsf": drawn[f"{name}.feedback"].abs() * signs, "usf": glorot * signs}
        assert angle == pytest.approx(degrees(weight, back[method]), abs=1e-3)
        assert ratio == pytest.approx(float(back[method].norm() / weight.norm()), rel=1e-5)
        assert method == "fa" or angle < 90


def test_the_matrix_of_brsf_is_that_of_the_last_pass_and_looking_draws_no_new_one():
    layer = nn.Linear(300, 8)
    net = nn.ModuleDict({"layer": layer})
    attach(net, "brsf")
    x = torch.randn(1, 300, requires_grad=True)
    y = layer(x)
    found = [weight_alignment(net), weight_alignment(net)]
    back = torch.stack([torch.autograd.grad(y, x, row.expand_as(y), retain_graph=True)[0][0] for row in torch.eye(8)])
    assert found[0] == found[1]
    assert found[0]["layer"].angle == pytest.approx(degrees(layer.weight, back), abs=1e-3)
    layer(x)
    assert weight_alignment(net)["layer"] != found[0]["layer"]


def test_the_weight_is_the_one_that_the_layer_computes_with():
    net = nn.Sequential(weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3))
    attach(net, "usf")
    before = weight_alignment(net)["0"]
    with torch.no_grad():
        net[0].parametrizations.weight.original0.mul_(2.0)
    after = weight_alignment(net)["0"]
    assert after.angle == pytest.approx(before.angle, abs=1e-3)
    assert after.norm_ratio == pytest.approx(before.norm_ratio / 2, rel=1e-5)


def test_training_turns_the_weights_towards_their_matrices():
    """What feedback alignment is named for (Lillicrap 2016): a linear network on a linear task."""
    torch.manual_seed(0)
    net, (x, _) = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), batch(64)
    target = x @ torch.randn(6, 4)
    with torch.no_grad():
        for layer in net:
            layer.weight.mul_(0.1)
    attach(net, "fa", seed=1)
    start = weight_alignment(net)["1"].angle
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (net(x) - target).square().mean().backward()
        optimizer.step()
    assert weight_alignment(net)["1"].angle < min(start, 80)


def test_a_weight_of_zeros_has_no_direction():
    net = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    nn.init.zeros_(net[1].weight)
    attach(net, "fa")
    assert weight_alignment(net)["1"] == (90.0, math.inf)


def test_a_rule_that_broadcasts_has_no_such_matrices():
    net = Mlp()
    attach(net, "dfa")
    with pytest.raises(DFAError, match=r"dfa has no matrix for each layer.*measure_alignment"):
        weight_alignment(net)
