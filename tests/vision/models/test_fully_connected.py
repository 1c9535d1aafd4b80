"""Fully connected networks: what they compute, and what their hidden layers receive under each method."""

import math

import pytest
import torch
import torch.nn.functional as F

from harness.errors import UserError
from tinydfa import Feedback, Method, attach
from vision.models.build import build_model
from vision.models.fully_connected import FullyConnected
from vision.models.layers import initialise
from vision.preset import Preset


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 7, generator=generator), torch.randint(0, 3, (6,), generator=generator)


@pytest.fixture
def net():
    torch.manual_seed(1)
    return FullyConnected((7, 5, 4, 3))


def test_an_unattached_network_is_the_plain_one(net):
    x, _ = batch()
    plain = torch.nn.Sequential(
        net.hidden[0].layer[0], torch.nn.Tanh(), net.hidden[1].layer[0], torch.nn.Tanh(), net.top
    )
    torch.testing.assert_close(net(x), plain(x))


def test_dfa_gives_each_layer_its_own_random_projection_of_the_error(net):
    x, y = batch()
    attachment = attach(net, "dfa", feedback=Feedback(scaling="point", shared=False, seed=3))
    F.cross_entropy(net(x), y).backward()
    matrix = attachment.head.feedback_matrix  # columns of the first layer, then of the second
    error = (net(x).softmax(dim=1) - F.one_hot(y, 3)) / 6
    first, second = net.hidden[0].layer[0], net.hidden[1].layer[0]
    h1 = torch.tanh(x @ first.weight.T + first.bias)
    h2 = torch.tanh(h1 @ second.weight.T + second.bias)
    delta1 = error @ matrix[:, :5] / math.sqrt(3 * 5) * (1 - h1**2)
    delta2 = error @ matrix[:, 5:9] / math.sqrt(3 * 4) * (1 - h2**2)
    torch.testing.assert_close(first.weight.grad, delta1.T @ x)
    torch.testing.assert_close(second.weight.grad, delta2.T @ h1)
    torch.testing.assert_close(net.top.weight.grad, error.T @ h2)


def test_dropout_inside_a_layer_masks_its_signal_and_dropout_after_it_does_not():
    x, y = batch()
    for place in ("inner_dropout", "dropout"):
        torch.manual_seed(0)
        net = FullyConnected((7, 40, 3), **{place: 0.5})
        attach(net, "dfa")
        F.cross_entropy(net(x[:1]), y[:1]).backward()
        silent = (net.hidden[0].layer[0].bias.grad == 0).float().mean().item()
        assert (0.2 < silent < 0.8) if place == "inner_dropout" else silent == 0


def test_batch_norm_stands_after_the_activation(net):
    net = FullyConnected((7, 5, 3), act="relu", batch_norm=True).train()
    seen = []
    net.hidden[0].point.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(batch()[0])
    torch.testing.assert_close(seen[0].mean(dim=0), torch.zeros(5), atol=1e-5, rtol=0)
    assert (seen[0] < 0).any()


@pytest.mark.parametrize("method", list(Method))
def test_every_method_trains_a_step(method, net):
    x, y = batch()
    attachment = attach(net, method)
    attachment.target = y if method is Method.DRTP else None
    F.cross_entropy(net(x), y).backward()
    gradient = net.hidden[0].layer[0].weight.grad
    assert (gradient is None) == (method is Method.SHALLOW)
    assert gradient is None or gradient.abs().sum() > 0
    assert net.top.weight.grad.abs().sum() > 0


def test_frozen_convolutions_get_no_gradient_and_the_layers_above_do():
    preset = Preset(method=Method.DFA, model="topology", topology="CONV_2_3_1_1_FC_5_FC_3", freeze_convs=True)
    net = build_model(preset, (1, 4, 4), 3)
    attach(net, "dfa")
    net(torch.randn(2, 1, 4, 4)).square().sum().backward()
    assert net.convs[0].conv.weight.grad is None
    assert net.fc.hidden[0].layer[0].weight.grad.abs().sum() > 0


def test_a_topology_that_ends_in_the_wrong_width_is_refused():
    preset = Preset(method=Method.BP, model="topology", topology="FC_5_FC_3")
    with pytest.raises(UserError, match=r"ends in 3 outputs, and the data has 10. End it with FC_10"):
        build_model(preset, (1, 4, 4), 10)


def test_initialisations_have_the_spread_they_are_named_for():
    def weight(init):
        torch.manual_seed(0)
        net = FullyConnected((400, 300, 10))
        initialise(net, init)
        return net.hidden[0].layer[0].weight

    assert weight("he").abs().max().item() == pytest.approx(math.sqrt(6 / 400), rel=0.01)
    assert weight("default").abs().max().item() == pytest.approx(math.sqrt(1 / 400), rel=0.01)
    assert weight("xavier").abs().max().item() == pytest.approx(math.sqrt(6 / 700), rel=0.01)
    assert weight("normal").std().item() == pytest.approx(1, rel=0.02)
    assert not weight("zero").any()


def test_zero_leaves_convolutions_as_they_were():
    preset = Preset(method=Method.DFA, model="topology", topology="CONV_2_3_1_1_FC_5_FC_3", init="zero")
    net = build_model(preset, (1, 4, 4), 3)
    assert net.convs[0].conv.weight.any()
    assert not net.fc.top.weight.any()


def test_an_unknown_activation_is_named():
    with pytest.raises(UserError, match=r"no activation is called 'swish'\. There are tanh"):
        FullyConnected((2, 2, 2), act="swish")
