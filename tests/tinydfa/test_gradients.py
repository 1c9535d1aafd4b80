"""What every broadcasting method sends to the hidden layers, against the rule written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import ConvNet, Mlp, assert_gradients, batch, error_of, mlp_rule, one_hot
from tinydfa import DFALayer, Feedback, attach
from tinydfa.rules import TernaryDFA

THRESHOLD = 0.03


def signals(y):
    return {
        "dfa": lambda e: e,
        "sdfa": torch.sign,
        "tdfa": lambda e: (e > THRESHOLD).float() - (e < -THRESHOLD).float(),
        "drtp": lambda e: one_hot(y),
    }


@pytest.mark.parametrize("method", ["dfa", "sdfa", "tdfa", "drtp"])
def test_hidden_gradients_equal_the_rule_written_by_hand(method):
    net, (x, y) = Mlp(), batch()
    rule = TernaryDFA(threshold=THRESHOLD) if method == "tdfa" else method
    attachment = attach(net, rule, feedback=Feedback(seed=3))
    attachment.target = y
    cross_entropy(net(x), y).backward()
    matrix = attachment.head.feedback_matrix
    assert matrix.shape == (3, 7)
    assert -1 <= matrix.min() < -0.5
    assert 0.5 < matrix.max() < 1
    assert_gradients(net, mlp_rule(net, x, y, matrix, signals(y)[method]))


def test_ternary_keeps_some_entries_and_drops_some():
    """Guards the test above: a threshold that keeps all or none would not tell tdfa from sdfa."""
    net, (x, y) = Mlp(), batch()
    kept = error_of(net(x), y).abs() > THRESHOLD
    assert 0 < kept.sum() < kept.numel()


def test_ternary_threshold_is_the_mean_magnitude_unless_given():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "tdfa")
    cross_entropy(net(x), y).backward()

    def ternary(e):
        return torch.where(e.abs() > e.abs().mean(), e / e.abs(), torch.zeros(()))

    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, ternary))


def test_shallow_trains_only_what_is_above_the_last_point():
    net, (x, y) = Mlp(), batch()
    attach(net, "shallow")
    cross_entropy(net(x), y).backward()
    rule = mlp_rule(net, x, y, torch.zeros(3, 7), lambda e: e)
    assert_gradients(net, {name: rule[name] for name in ("top.weight", "top.bias")})


@pytest.mark.parametrize("method", ["shallow", "dfa", "sdfa", "tdfa", "drtp"])
def test_top_layer_gets_exactly_the_backpropagated_gradient(method):
    net, (x, y) = Mlp(), batch()
    cross_entropy(net(x), y).backward()
    truth = net.top.weight.grad, net.top.bias.grad
    net.zero_grad()
    attach(net, method).target = y
    cross_entropy(net(x), y).backward()
    assert torch.equal(net.top.weight.grad, truth[0])
    assert torch.equal(net.top.bias.grad, truth[1])


def test_target_rows_and_unlabelled_samples_under_drtp():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "drtp")
    labelled = torch.tensor([1, 1, 0, 1, 0, 1, 1, 1], dtype=torch.bool)
    rows = one_hot(y) * labelled[:, None]
    attachment.target = torch.where(labelled, y, -100)
    cross_entropy(net(x), y).backward()
    expected = mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: rows)
    assert_gradients(net, expected)
    net.zero_grad()
    attachment.target = rows
    cross_entropy(net(x), y).backward()
    assert_gradients(net, expected)


def test_convolutions_and_linear_layers_follow_the_rule():
    net, (x, y) = ConvNet(), batch(4, 2, 8, 8)
    attachment = attach(net, "dfa", seed=1)
    cross_entropy(net(x), y).backward()
    matrix = attachment.head.feedback_matrix
    assert matrix.shape == (3, 3 * 6 * 6)
    h1 = torch.tanh(nn.functional.conv2d(x, net.conv1.weight, net.conv1.bias))
    h2 = torch.tanh(nn.functional.conv2d(h1.detach(), net.conv2.weight, net.conv2.bias))
    h3 = torch.tanh(h2.detach().flatten(1) @ net.fc.weight.T + net.fc.bias)
    output = h3.detach() @ net.top.weight.T + net.top.bias
    e = error_of(output.detach(), y)
    expected = {"top.weight": e.T @ h3.detach(), "top.bias": e.sum(0)}
    for name, layer, h in (("conv1", net.conv1, h1), ("conv2", net.conv2, h2), ("fc", net.fc, h3)):
        signal = (e @ matrix[:, : h[0].numel()] / 108**0.5).reshape(h.shape)
        weight, bias = torch.autograd.grad(h, [layer.weight, layer.bias], signal)
        expected |= {f"{name}.weight": weight, f"{name}.bias": bias}
    assert_gradients(net, expected)


def test_a_frozen_layer_gets_nothing_and_the_others_what_they_got():
    net, (x, y) = Mlp(), batch()
    net.hidden[1].requires_grad_(False)
    attachment = attach(net, "dfa")
    cross_entropy(net(x), y).backward()
    rule = mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e)
    assert_gradients(net, {name: g for name, g in rule.items() if not name.startswith("hidden.1")})


def test_a_frozen_widest_layer_still_counts_in_the_scale_and_can_be_unfrozen():
    net, (x, y) = Mlp((6, 9, 4, 7, 3)), batch()
    net.hidden[0].requires_grad_(False)
    attachment = attach(net, "dfa")
    for frozen in (True, False):
        net.hidden[0].requires_grad_(not frozen)
        net.zero_grad()
        cross_entropy(net(x), y).backward()
        matrix = attachment.head.feedback_matrix
        assert matrix.shape == (3, 9)
        rule = mlp_rule(net, x, y, matrix, lambda e: e, scale=lambda d: 1 / 3)
        assert_gradients(net, {name: g for name, g in rule.items() if not (frozen and name.startswith("hidden.0"))})


def test_two_forward_passes_before_one_backward_add_up():
    net, (x, y), (x2, y2) = Mlp(), batch(), batch(5, seed=9)
    attachment = attach(net, "dfa")
    first, second = net(x), net(x2)
    (cross_entropy(first, y) + 2 * cross_entropy(second, y2)).backward()
    matrix = attachment.head.feedback_matrix
    one, two = (mlp_rule(net, *data, matrix, lambda e: e) for data in ((x, y), (x2, y2)))
    assert_gradients(net, {name: one[name] + 2 * two[name] for name in one})


def test_gradients_accumulate_over_backward_passes():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    for part in (slice(0, 3), slice(3, 8)):
        (cross_entropy(net(x[part]), y[part], reduction="sum") / 8).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e))


def test_backward_with_retained_graph_twice_gives_the_gradient_twice():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    loss = cross_entropy(net(x), y)
    loss.backward(retain_graph=True)
    loss.backward()
    rule = mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e)
    assert_gradients(net, {name: 2 * g for name, g in rule.items()})


def test_a_point_that_runs_twice_in_a_pass_gets_its_signal_both_times():
    net = nn.ModuleDict({"a": nn.Linear(4, 4), "top": nn.Linear(4, 3)})
    point, (x, y) = DFALayer(), batch(8, 4)

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.point = net, point

        def forward(self, x):
            for _ in range(2):
                x = self.point(torch.tanh(self.net["a"](x)))
            return self.net["top"](x)

    model = Loop()
    attachment = attach(model, "dfa")
    cross_entropy(model(x), y).backward()
    with torch.no_grad():
        h1 = torch.tanh(net["a"](x))
        h2 = torch.tanh(net["a"](h1))
        signal = error_of(net["top"](h2), y) @ attachment.head.feedback_matrix / 2
        expected = (signal * (1 - h1**2)).T @ x + (signal * (1 - h2**2)).T @ h1
    torch.testing.assert_close(net["a"].weight.grad, expected)
