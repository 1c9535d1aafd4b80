"""Scripts written for the 2020 release: its arguments, attributes and numbers.

For a matrix F ``[c, D]`` the 2020 rule is ``p = e @ F / sqrt(D)``; a point of width d receives ``p[:, :d]``, repeated
for each of the k rows of a sample over sqrt(k).
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.tinydfa.nets import batch, error_of, fill
from tinydfa import DFA, DFALayer, FeedbackPointsHandling, light_dfa

HANDLINGS = list(FeedbackPointsHandling)


class Net(nn.Module):
    """Three hidden layers, points in attributes, in a plain list, or in a ModuleList, and a head at the end."""

    def __init__(self, keep: str = "list", kind=DFA, layer=DFALayer, **options) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4 = nn.Linear(6, 5), nn.Linear(5, 7), nn.Linear(7, 4), nn.Linear(4, 3)
        points = [layer(), layer(name="second"), layer()]
        if keep == "attributes":
            self.dfa1, self.dfa2, self.dfa3 = points
        self.points = nn.ModuleList(points) if keep == "modules" else points
        self.dfa = kind(self.points if keep == "modules" else points, **options)
        fill(self, torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.points[0](torch.tanh(self.fc1(x)))
        x = self.points[1](torch.tanh(self.fc2(x)))
        x = self.points[2](torch.tanh(self.fc3(x)))
        return self.dfa(self.fc4(x))


@torch.no_grad()
def rule(net: Net, x: Tensor, y: Tensor, matrix: Tensor | None, scale: float = 7**-0.5) -> list[Tensor]:
    """Weight gradients of the four layers; `matrix` None: nothing reaches the hidden ones."""
    h1 = torch.tanh(net.fc1(x))
    h2 = torch.tanh(net.fc2(h1))
    h3 = torch.tanh(net.fc3(h2))
    e = error_of(net.fc4(h3), y)
    if matrix is None:
        return [e.T @ h3]
    p = e @ matrix * scale
    d1, d2, d3 = p[:, :5] * (1 - h1**2), p[:, :7] * (1 - h2**2), p[:, :4] * (1 - h3**2)
    return [d1.T @ x, d2.T @ h1, d3.T @ h2, e.T @ h3]


def weight_gradients(net: Net) -> list[Tensor]:
    return [w.grad for w in (net.fc1.weight, net.fc2.weight, net.fc3.weight, net.fc4.weight) if w.grad is not None]


def check(net: Net, expected: list[Tensor]) -> None:
    found = weight_gradients(net)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("keep", ["attributes", "list", "modules"])
@pytest.mark.parametrize("handling", HANDLINGS)
def test_every_handling_gives_the_same_gradients_for_the_same_matrix(handling, keep):
    net, (x, y) = Net(keep, feedback_points_handling=handling, batch_dims=(0,)), batch()
    F.cross_entropy(net(x), y).backward()
    assert net.dfa.feedback_matrix.shape == (3, 7)
    check(net, rule(net, x, y, net.dfa.feedback_matrix))


@pytest.mark.parametrize("handling", HANDLINGS)
def test_an_assigned_matrix_is_the_one_in_use(handling):
    net, (x, y) = Net(feedback_points_handling=handling), batch()
    net(x)
    matrix = torch.rand(3, 7) * 2 - 1
    net.dfa.feedback_matrix = matrix
    F.cross_entropy(net(x), y).backward()
    check(net, rule(net, x, y, matrix))


def test_the_matrix_is_there_after_any_first_forward_pass():
    net, (x, y) = Net(), batch()
    assert net.dfa.feedback_matrix is None
    net.eval()
    with torch.no_grad():
        net(x)
    matrix = net.dfa.feedback_matrix
    assert matrix is not None
    assert matrix.shape == (3, 7)
    net.train()
    F.cross_entropy(net(x), y).backward()
    assert net.dfa.feedback_matrix is matrix
    check(net, rule(net, x, y, matrix))


def test_without_normalization_the_projection_stays_as_it_is():
    net, (x, y) = Net(normalization=False, rp_device=torch.device("cpu")), batch()
    F.cross_entropy(net(x), y).backward()
    check(net, rule(net, x, y, net.dfa.feedback_matrix, scale=1.0))


def test_minibatches_before_one_backward_pass_and_losses_added():
    net, (x, y), (x2, y2) = Net(feedback_points_handling=FeedbackPointsHandling.MINIBATCH), batch(), batch(5, seed=3)
    outputs = [net(x), net(x2)]
    (F.cross_entropy(outputs[0], y) + F.cross_entropy(outputs[1], y2)).backward()
    parts = [rule(net, *data, net.dfa.feedback_matrix) for data in ((x, y), (x2, y2))]
    check(net, [one + two for one, two in zip(*parts, strict=True)])


@pytest.mark.parametrize("kind", ["full", "light"])
def test_no_training_may_change_at_any_time(kind):
    parts = {"kind": light_dfa.DFA, "layer": light_dfa.DFALayer} if kind == "light" else {}
    net, (x, y) = Net(no_training=True, **parts), batch()
    F.cross_entropy(net(x), y).backward()
    check(net, rule(net, x, y, None))
    for no_training in (False, True, False):
        net.dfa.no_training = no_training
        net.zero_grad()
        F.cross_entropy(net(x), y).backward()
        check(net, rule(net, x, y, None if no_training else net.dfa.feedback_matrix))


def test_passthrough_on_all_points_without_training_is_backpropagation():
    net, (x, y) = Net(), batch()
    net(x)
    net.dfa.no_training = True
    for point in net.dfa.dfa_layers:
        point.passthrough = True
    F.cross_entropy(net(x), y).backward()
    weights = [net.fc1.weight, net.fc2.weight, net.fc3.weight, net.fc4.weight]
    h = torch.tanh(net.fc3(torch.tanh(net.fc2(torch.tanh(net.fc1(x))))))
    truth = torch.autograd.grad(F.cross_entropy(net.fc4(h), y), weights)
    for weight, gradient in zip(weights, truth, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    for point in net.dfa.dfa_layers:
        point.passthrough = False
    net.dfa.no_training = False
    net.zero_grad()
    F.cross_entropy(net(x), y).backward()
    check(net, rule(net, x, y, net.dfa.feedback_matrix))


def test_passthrough_while_training_adds_the_two_signals():
    """2020: the point is fed and does not cut, so the layer below gets both."""
    net, (x, y) = Net(), batch()
    net.points[2].passthrough = True
    F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        h2 = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
        h3 = torch.tanh(net.fc3(h2))
        e = error_of(net.fc4(h3), y)
        signal = e @ net.dfa.feedback_matrix[:, :4] / 7**0.5 + e @ net.fc4.weight
    torch.testing.assert_close(net.fc3.weight.grad, (signal * (1 - h3**2)).T @ h2)


def test_light_version_gives_the_same_gradients():
    net, (x, y) = Net(kind=light_dfa.DFA, layer=light_dfa.DFALayer, normalization=True, rp_device=None), batch()
    F.cross_entropy(net(x), y).backward()
    assert net.dfa.feedback_matrix.shape == (3, 7)
    check(net, rule(net, x, y, net.dfa.feedback_matrix))


def test_light_passthrough_leaves_a_point_out():
    net, (x, y) = Net(kind=light_dfa.DFA, layer=light_dfa.DFALayer), batch()
    net(x)
    net.points[2].passthrough = True
    F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        h2 = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
        h3 = torch.tanh(net.fc3(h2))
        delta = error_of(net.fc4(h3), y) @ net.fc4.weight * (1 - h3**2)
    torch.testing.assert_close(net.fc3.weight.grad, delta.T @ h2)


@pytest.mark.parametrize("handling", HANDLINGS)
@pytest.mark.parametrize("point_dims", [None, (0, 1)])
def test_rows_of_a_sample_repeat_its_projection(point_dims, handling):
    """A field network: [B, k, f] embeddings under an output [B, c]."""
    below, top = nn.Linear(6, 4), nn.Linear(4, 3)
    point = DFALayer(batch_dims=point_dims)
    head = DFA([point], feedback_points_handling=handling)
    x, (_, y) = torch.randn(5, 2, 6), batch(5)
    h = torch.tanh(below(x))
    F.cross_entropy(head(top(point(h).sum(1))), y).backward()
    with torch.no_grad():
        e = error_of(top(h.sum(1)), y)
        if point_dims is None:
            signal = (e @ head.feedback_matrix / 8**0.5).reshape(5, 2, 4)
        else:
            signal = (e @ head.feedback_matrix / 4**0.5)[:, None].expand(5, 2, 4) / 2**0.5
        delta = signal * (1 - h**2)
    torch.testing.assert_close(below.weight.grad, delta.reshape(10, 4).T @ x.reshape(10, 6))


def test_convolutions_are_flattened_per_sample():
    conv, point, top = nn.Conv2d(1, 2, 3), DFALayer(), nn.Linear(2 * 4 * 4, 3)
    head, (x, y) = DFA([point]), batch(4, 1, 6, 6)
    h = torch.tanh(conv(x))
    F.cross_entropy(head(top(point(h).flatten(1))), y).backward()
    with torch.no_grad():
        signal = (error_of(top(h.flatten(1)), y) @ head.feedback_matrix / 32**0.5).reshape(h.shape)
    again = torch.tanh(conv(x))
    torch.testing.assert_close(conv.weight.grad, torch.autograd.grad(again, conv.weight, signal)[0])


def test_a_training_script_of_2020_runs_and_learns():
    torch.manual_seed(0)
    net = Net("attributes")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    x, _ = batch(256)
    y = (x[:, :3] + x[:, 3:]).argmax(1)
    for _ in range(80):
        net.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        assert (net(x).argmax(1) == y).float().mean() > 0.8


@pytest.mark.parametrize("keep", ["attributes", "list", "modules"])
def test_saved_weights_and_matrix_load_into_a_model_that_has_not_run(keep):
    net, (x, y) = Net(keep), batch()
    net(x)
    fresh = Net(keep)
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh.dfa.feedback_matrix, net.dfa.feedback_matrix)
    F.cross_entropy(fresh(x), y).backward()
    check(fresh, rule(net, x, y, net.dfa.feedback_matrix))


def test_a_deep_copy_of_a_model_with_points_in_a_plain_list_trains_alone():
    net, (x, y) = Net("list"), batch()
    F.cross_entropy(net(x), y).backward()
    copied = copy.deepcopy(net)
    copied.zero_grad()
    F.cross_entropy(copied(x), y).backward()
    check(copied, weight_gradients(net))
    assert copied.points[0] is not net.points[0]
    assert copied.dfa.dfa_layers[0] is copied.points[0]
