"""Pre-alignment: the weights it sets, against their closed forms, and what they do to the alignment."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tinydfa import DFALayer, Feedback, Method, attach, measure_alignment
from vision.bottleneck.model import bottleneck_net
from vision.bottleneck.prealign import prealign
from vision.models.convnets import PrincipledCNN
from vision.models.fully_connected import FullyConnected
from vision.models.topology import TopologyNet


def batch(features=7, classes=3, samples=12):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, features, generator=generator).double()
    return x, torch.randint(0, classes, (samples,), generator=generator)


def attached(widths=(7, 6, 5, 3), method="dfa"):
    torch.manual_seed(1)
    model = FullyConnected(widths).double()
    return model, attach(model, method, feedback=Feedback(distribution="gaussian", scaling="point", seed=3))


def signal_matrix(attachment, width, classes=3):
    return attachment.head.feedback_matrix[:, :width].double() / math.sqrt(classes * width)


def test_the_top_layer_becomes_the_feedback_where_errors_span_all_outputs():
    model, attachment = attached()
    x, _ = batch()
    targets = torch.randn(12, 3, generator=torch.Generator().manual_seed(5))
    prealign(model, attachment, x, targets, lambda output, target: (output - target).square().sum())
    expected = signal_matrix(attachment, 5)
    torch.testing.assert_close(model.top.weight, expected / expected.norm())


def test_the_top_layer_becomes_the_feedback_without_its_mean_over_classes_under_cross_entropy():
    model, attachment = attached()
    prealign(model, attachment, *batch(), F.cross_entropy)
    expected = signal_matrix(attachment, 5)
    expected = expected - expected.mean(dim=0)  # an error sums to zero over the classes: that part is never sent
    torch.testing.assert_close(model.top.weight, expected / expected.norm())


def test_a_hidden_layer_becomes_the_shortest_least_squares_solution():
    model, attachment = attached()
    x, y = batch(samples=4)  # fewer samples than the layer has outputs: many solutions
    prealign(model, attachment, x, y, F.cross_entropy)
    first, second = model.hidden[0].layer[0], model.hidden[1].layer[0]
    torch.manual_seed(1)
    second_before = FullyConnected((7, 6, 5, 3)).double().hidden[1].layer[0].weight.detach()
    with torch.no_grad():
        h1 = torch.tanh(x @ first.weight.T + first.bias)
        h2 = torch.tanh(h1 @ second_before.T + second.bias)
        error = (model.top(h2).softmax(dim=1) - F.one_hot(y, 3)) / 4
        g = error @ model.top.weight * (1 - h2**2)  # the top layer is replaced by then
        r = error @ signal_matrix(attachment, 6)
    expected = np.linalg.lstsq(g.numpy(), r.numpy(), rcond=1e-6)[0]
    torch.testing.assert_close(second.weight.detach(), torch.from_numpy(expected / np.linalg.norm(expected)))


def test_a_layer_without_a_point_below_is_aligned_with_the_gradient_that_comes_down_to_it():
    torch.manual_seed(0)
    model = bottleneck_net(7, 3, width=8, size=4, samples=6).double()
    old = model.middle.weight.detach().clone()
    attachment = attach(model, "dfa", feedback=Feedback(scaling="point", seed=2))
    x, y = batch(samples=6)
    prealign(model, attachment, x, y, F.cross_entropy)
    with torch.no_grad():
        h1 = torch.tanh(model.first(x))
        h2 = torch.tanh(h1 @ old.T + model.middle.bias)
        h3 = torch.tanh(model.third(h2))
        error = (model.top(h3).softmax(dim=1) - F.one_hot(y, 3)) / 6
        g = error @ model.top.weight * (1 - h3**2) @ model.third.weight * (1 - h2**2)
        r = error @ signal_matrix(attachment, 8) * (1 - h2**2) @ old * model.middle.input_mask
    expected = np.linalg.pinv(g.numpy(), rcond=1e-6) @ r.numpy()
    torch.testing.assert_close(model.middle.weight.detach(), torch.from_numpy(expected / np.linalg.norm(expected)))


@pytest.mark.parametrize("method", ["dfa", "sdfa", "tdfa", "drtp"])
def test_gradients_at_the_points_agree_far_better_afterwards(method):
    model, attachment = attached((20, 40, 40, 10), method)
    x, y = batch(20, 10, samples=64)

    def found():
        def loss(model):
            attachment.target = y if method == "drtp" else None
            return F.cross_entropy(model(x), y)

        cosines = measure_alignment(model, loss)
        return [cosines[name].mean for name in attachment.points]

    before = found()
    prealign(model, attachment, x, y, F.cross_entropy)
    after = found()
    assert max(map(abs, before)) < 0.2
    assert min(after) > (0.99 if method == "dfa" else 0.4)


def test_all_else_stays_as_it_was():
    model, attachment = attached()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    prealign(model, attachment, *batch(), F.cross_entropy)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"hidden.1.layer.0.weight", "top.weight"}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    for weight in (model.top.weight, model.hidden[1].layer[0].weight):
        assert weight.norm().item() == pytest.approx(1, rel=1e-5)


def test_dropout_between_a_point_and_the_layer_above_is_passed_over():
    torch.manual_seed(0)
    model = FullyConnected((7, 6, 3), dropout=0.3).double()
    attachment = attach(model, "dfa", feedback=Feedback(scaling="point"))
    prealign(model, attachment, *batch(), F.cross_entropy)
    expected = signal_matrix(attachment, 6)
    expected = expected - expected.mean(dim=0)
    torch.testing.assert_close(model.top.weight, expected / expected.norm())


def test_convolutions_keep_their_weights_and_the_linear_layers_above_are_set():
    torch.manual_seed(0)
    model = PrincipledCNN((1, 16, 16))
    attachment = attach(model, "dfa")
    x = torch.randn(8, 1, 16, 16)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    prealign(model, attachment, x, torch.arange(8), F.cross_entropy)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"fc.hidden.0.layer.0.weight", "fc.top.weight"}


@pytest.mark.parametrize("method", [m for m in Method if m.value not in ("dfa", "sdfa", "tdfa", "drtp")])
def test_methods_without_a_signal_of_their_own_are_refused(method):
    model, attachment = attached(method=method)
    with pytest.raises(ValueError, match=f"{method} sends no signal of its own.*Use one of dfa, sdfa, tdfa, drtp"):
        prealign(model, attachment, *batch(), F.cross_entropy)


def test_a_point_before_the_pool_is_refused():
    model = TopologyNet("CONV_2_3_1_1_FC_5_FC_3", (1, 4, 4))
    attachment = attach(model, "dfa")
    with pytest.raises(ValueError, match=r"below a layer with 8 inputs is 32 wide\. Put the feedback point"):
        prealign(model, attachment, torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2]), F.cross_entropy)


def test_points_named_in_any_chain_of_linear_layers_will_do():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 6), nn.ReLU(), DFALayer(), nn.Linear(6, 3)).double()
    attachment = attach(model, "dfa", feedback=Feedback(scaling="point"))
    prealign(model, attachment, *batch(), F.cross_entropy)
    expected = signal_matrix(attachment, 6)
    expected = expected - expected.mean(dim=0)
    torch.testing.assert_close(model[3].weight, expected / expected.norm())
