"""Ways into a model that are easy to forget: inference mode first, pickles, tied layers, heads beside heads."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.tinydfa.nets import Mlp, assert_gradients, batch, error_of, gradients_of, mlp_rule, one_hot
from tinydfa import DFA, DFAError, DFALayer, attach, attachment_of


def headed() -> nn.Sequential:
    net = Mlp()
    return nn.Sequential(net, DFA(list(net.points)))


@pytest.mark.parametrize("own_head", [True, False])
def test_evaluation_in_inference_mode_before_the_first_step(own_head):
    model, (x, y) = headed() if own_head else nn.Sequential(Mlp()), batch()
    attachment = None if own_head else attach(model, "dfa")
    with torch.inference_mode():
        model(x)
    cross_entropy(model(x), y).backward()
    head = model[1] if own_head else attachment.head
    assert_gradients(model[0], mlp_rule(model[0], x, y, head.feedback_matrix, lambda e: e))


@pytest.mark.parametrize("method", ["dfa", "fa", "brsf"])
def test_attaching_or_switching_in_inference_mode(method):
    net, (x, y) = Mlp(), batch()
    with torch.inference_mode():
        attach(net, method)
        net(x)
    cross_entropy(net(x), y).backward()
    assert net.hidden[0].weight.grad is not None


@pytest.mark.parametrize("method", ["bp", "dfa", "fa"])
def test_a_model_with_a_head_of_its_own_obeys_an_attachment_at_other_points(method):
    """Two heads at work would train by neither method: refused, or the attachment alone decides."""
    (x, y), other = batch(), Mlp()
    model = headed()
    try:
        attachment = attach(model, method, points=["0.hidden.0", "0.hidden.1"])
    except DFAError as error:
        assert "head" in str(error)  # noqa: PT017
        return
    cross_entropy(model(x), y).backward()
    reference = attach(other, method, points=["hidden.0", "hidden.1"])
    cross_entropy(other(x), y).backward()
    assert attachment.method == reference.method
    assert_gradients(model[0], gradients_of(other))


def test_weights_without_a_feedback_matrix_load_into_a_head_that_has_one():
    model, (x, y) = headed(), batch()
    weights = copy.deepcopy(model.state_dict())
    assert not any("feedback" in name for name in weights)
    cross_entropy(model(x), y).backward()
    matrix = model[1].feedback_matrix.clone()
    model.load_state_dict(weights)
    assert torch.equal(model[1].feedback_matrix, matrix)


@pytest.mark.parametrize("method", ["dfa", "drtp", "fa", "brsf"])
@pytest.mark.parametrize("points", [None, ["hidden.*"]])
def test_an_attached_model_survives_a_pickle(method, points):
    net, (x, y) = Mlp(), batch()
    attach(net, method, points=points)
    loaded = pickle.loads(pickle.dumps(net))
    for model in (net, loaded):
        attachment_of(model).target = y
        cross_entropy(model(x), y).backward()
    assert attachment_of(loaded).model is loaded
    assert_gradients(loaded, gradients_of(net))


def test_a_tied_layer_is_found_by_each_of_its_names():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6)
            self.second, self.top = self.first, nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.top(torch.tanh(self.second(torch.tanh(self.first(x)))))

    assert len(attach(Tied(), "dfa", points=["second"]).points) == 1
    assert len(attach(Tied(), "dfa", points=["first", "second"]).points) == 1


def test_targets_belong_to_their_pass_when_several_run_before_backward():
    net, (x, y), (x2, y2) = Mlp(), batch(), batch(5, seed=9)
    attachment = attach(net, "drtp")
    attachment.target = y
    first = net(x)
    attachment.target = y2
    second = net(x2)
    (cross_entropy(first, y) + cross_entropy(second, y2)).backward()
    matrix = attachment.head.feedback_matrix
    one = mlp_rule(net, x, y, matrix, lambda e: one_hot(y))
    two = mlp_rule(net, x2, y2, matrix, lambda e: one_hot(y2))
    assert_gradients(net, {name: one[name] + two[name] for name in one})


def test_an_evaluation_between_forward_and_backward_changes_nothing():
    net, (x, y), (other, _) = Mlp(), batch(), batch(3, seed=5)
    attachment = attach(net, "dfa")
    output = net(x)
    with torch.no_grad():
        net(other)
    net(other)  # with gradients, then thrown away
    cross_entropy(output, y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e))


def test_batch_sizes_may_change_from_step_to_step():
    net = Mlp()
    attachment = attach(net, "dfa")
    for samples in (8, 3, 8, 1, 5):
        x, y = batch(samples, seed=samples)
        net.zero_grad()
        cross_entropy(net(x), y).backward()
        assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e))


def test_the_gradient_at_the_input_comes_from_the_first_layers_signal():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "dfa")
    x.requires_grad_()
    cross_entropy(net(x), y).backward()
    with torch.no_grad():
        h = x
        for layer in net.hidden:
            h = torch.tanh(layer(h))
        signal = error_of(net.top(h), y) @ attachment.head.feedback_matrix[:, :5] / 7**0.5
        delta = signal * (1 - torch.tanh(net.hidden[0](x)) ** 2)
    torch.testing.assert_close(x.grad, delta @ net.hidden[0].weight.detach())


def test_a_gradient_penalty_runs():
    net, (x, y) = Mlp(), batch()
    attach(net, "dfa")
    x.requires_grad_()
    loss = cross_entropy(net(x), y)
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    (loss + slope.square().sum()).backward()
    assert net.hidden[0].weight.grad is not None


def test_inplace_activations_above_a_point():
    torch.manual_seed(0)
    net, (x, y) = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)), batch()
    plain = copy.deepcopy(net)
    plain[1].inplace = False
    found = []
    for model in (net, plain):
        attach(model, "dfa", points=["0"])
        cross_entropy(model(x), y).backward()
        found.append(gradients_of(model))
    assert_gradients(net, found[1])


def test_points_at_leaf_tensors_do_not_share_their_gradients():
    """Learned tables and inputs keep what the head sends them, and both read the same columns of the projection."""
    a, b, top = nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.randn(8, 4)), nn.Linear(4, 3)
    points, (_, y) = [DFALayer(), DFALayer()], batch()
    head = DFA(points)
    cross_entropy(head(top(points[0](a) + points[1](b))), y).backward()
    expected = error_of(top(a + b).detach(), y) @ head.feedback_matrix / 2
    a.grad.zero_()
    torch.testing.assert_close(b.grad, expected)
    cross_entropy(head(top(points[0](a) + points[1](b))), y).backward()
    torch.testing.assert_close(a.grad, expected)
    torch.testing.assert_close(b.grad, 2 * expected)
