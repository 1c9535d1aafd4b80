"""Outputs and points of several batch dimensions, rows that repeat their sample's signal, points in checkpoints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tests.tinydfa.nets import Mlp, assert_gradients, batch, error_of, fill, mlp_rule, one_hot
from tinydfa import DFA, DFAError, DFALayer, attach, attachment_of


class Pooled(nn.Module):
    """A layer per node, a point, the sum over each sample's nodes, a layer on top."""

    def __init__(self, own_index: bool = False) -> None:
        super().__init__()
        self.own_index = own_index
        self.below, self.mid, self.top = nn.Linear(6, 5), nn.Linear(5, 7), nn.Linear(7, 3)
        self.point1, self.point2 = DFALayer(), DFALayer()
        fill(self, torch.Generator().manual_seed(0))

    def forward(self, x: Tensor, sample: Tensor, samples: int) -> Tensor:
        extra = (sample,) if self.own_index else ()
        h = self.point1(torch.tanh(self.below(x)), *extra)
        h = self.point2(torch.tanh(self.mid(h)), *extra)
        return self.top(torch.zeros(samples, 7).index_add(0, sample, h))


def pooled_rule(net: Pooled, x: Tensor, sample: Tensor, y: Tensor, matrix: Tensor) -> dict[str, Tensor]:
    """Every node gets its sample's signal, divided by the square root of the sample's number of nodes."""
    with torch.no_grad():
        h1 = torch.tanh(x @ net.below.weight.T + net.below.bias)
        h2 = torch.tanh(h1 @ net.mid.weight.T + net.mid.bias)
        pooled = torch.stack([h2[sample == i].sum(0) for i in range(len(y))])
        error = error_of(pooled @ net.top.weight.T + net.top.bias, y)
        nodes = torch.tensor([float((sample == i).sum()) for i in sample])
        signal = error[sample] @ matrix / 7**0.5 / nodes.sqrt()[:, None]
        delta1, delta2 = signal[:, :5] * (1 - h1**2), signal * (1 - h2**2)
    return {
        "below.weight": delta1.T @ x, "below.bias": delta1.sum(0),
        "mid.weight": delta2.T @ h1, "mid.bias": delta2.sum(0),
        "top.weight": error.T @ pooled, "top.bias": error.sum(0),
    }  # fmt: skip


def test_rows_in_whole_multiples_repeat_their_samples_signal():
    net, (x, _), (_, y) = Pooled(), batch(12), batch(4)
    sample = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    attachment = attach(net, "dfa", seed=2)
    cross_entropy(net(x, sample, 4), y).backward()
    assert_gradients(net, pooled_rule(net, x, sample, y, attachment.head.feedback_matrix))


@pytest.mark.parametrize("own_index", [True, False])
def test_unequal_graphs_get_their_samples_signal_by_index(own_index):
    net, (x, _), (_, y) = Pooled(own_index), batch(12), batch(3)
    sample = torch.tensor([2, 0, 0, 1, 2, 2, 1, 2, 2, 0, 2, 2])
    attachment = attach(net, "dfa", seed=2)
    if own_index:
        output = net(x, sample, 3)
    else:
        with attachment.samples(sample):
            output = net(x, sample, 3)
    cross_entropy(output, y).backward()
    assert_gradients(net, pooled_rule(net, x, sample, y, attachment.head.feedback_matrix))


def test_a_sample_without_nodes_disturbs_no_other():
    net, (x, _), (_, y) = Pooled(own_index=True), batch(6), batch(3)
    sample = torch.tensor([0, 2, 2, 2, 0, 2])
    attachment = attach(net, "dfa")
    cross_entropy(net(x, sample, 3), y).backward()
    assert_gradients(net, pooled_rule(net, x, sample, y, attachment.head.feedback_matrix))


@pytest.mark.parametrize("batch_dims", [None, (0, 1)])
def test_sequences_count_every_position_as_a_sample(batch_dims):
    net = Mlp()
    x, y = batch(12)
    attachment = attach(net, "dfa", batch_dims=batch_dims)
    output = net(x.reshape(4, 3, 6))
    cross_entropy(output.flatten(0, 1), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: e))


def test_target_of_a_sequence_under_drtp():
    net, (x, y) = Mlp(), batch(12)
    attachment = attach(net, "drtp")
    attachment.target = y.reshape(4, 3)
    cross_entropy(net(x.reshape(4, 3, 6)).flatten(0, 1), y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: one_hot(y)))


def test_batch_dims_zero_projects_all_positions_of_a_sample_together():
    net, (x, y) = Mlp((6, 4, 5, 3)), batch(12)
    attachment = attach(net, "dfa", batch_dims=(0,))
    cross_entropy(net(x.reshape(4, 3, 6)).flatten(0, 1), y).backward()
    matrix = attachment.head.feedback_matrix
    assert matrix.shape == (3 * 3, 3 * 5)
    with torch.no_grad():
        h1 = torch.tanh(net.hidden[0](x))
        h2 = torch.tanh(net.hidden[1](h1))
        error = error_of(net.top(h2), y).reshape(4, 9)
        signal = error @ matrix / 15**0.5
        delta1 = signal[:, :12].reshape(12, 4) * (1 - h1**2)
        delta2 = signal.reshape(12, 5) * (1 - h2**2)
    torch.testing.assert_close(net.hidden[0].weight.grad, delta1.T @ x)
    torch.testing.assert_close(net.hidden[1].weight.grad, delta2.T @ h1)


def test_batch_dims_that_are_not_in_front():
    """Time first, batch second at the point; channels between batch and place at the output."""
    layer, point, top = nn.Linear(6, 5), DFALayer(batch_dims=(1,)), nn.Linear(5, 3)
    head = DFA([point], batch_dims=(0,))
    x, y = torch.randn(2, 4, 6), torch.randint(0, 3, (4,))
    h = torch.tanh(layer(x))
    cross_entropy(head(top(point(h).mean(0))), y).backward()
    with torch.no_grad():
        error = error_of(top(h.mean(0)), y)
        signal = (error @ head.feedback_matrix / 10**0.5).reshape(4, 2, 5).transpose(0, 1)
        delta = (signal * (1 - h**2)).reshape(8, 5)
    torch.testing.assert_close(layer.weight.grad, delta.T @ x.reshape(8, 6))


def test_channels_in_the_middle_of_the_output():
    layer, point, top = nn.Linear(6, 5), DFALayer(batch_dims=(0, 1)), nn.Linear(5, 3)
    head = DFA([point], batch_dims=(0, 2))
    x, y = torch.randn(2, 4, 6), torch.randint(0, 3, (2, 4))
    h = torch.tanh(layer(x))
    output = head(top(point(h)).transpose(1, 2))  # [2, 3, 4]
    cross_entropy(output, y).backward()
    with torch.no_grad():
        flat = h.reshape(8, 5)
        signal = error_of(top(flat), y.reshape(8)) @ head.feedback_matrix / 5**0.5
    torch.testing.assert_close(layer.weight.grad, (signal * (1 - flat**2)).T @ x.reshape(8, 6))


@pytest.mark.parametrize("method", ["bp", "shallow", "dfa", "sdfa", "tdfa", "drtp", "fa", "usf", "brsf", "frsf"])
@pytest.mark.parametrize("region", ["block", "whole"])
def test_checkpointing_changes_no_gradient(method, region):
    assert_gradients(*(checkpointed(method, use, region) for use in (True, False)))


def checkpointed(method: str, use: bool, region: str) -> nn.Module | dict[str, Tensor]:
    """A trained step with checkpoints (returns the model) or without (its gradients)."""
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, method, seed=4)
    attachment.target = y
    if use and region == "block":
        for layer in (net.hidden[1], net.points[1]):
            plain = layer.forward
            layer.forward = lambda *inputs, plain=plain: checkpoint(plain, *inputs, use_reentrant=False)
    output = checkpoint(net, x, use_reentrant=False) if use and region == "whole" else net(x)
    cross_entropy(output, y).backward()
    return net if use else {name: p.grad for name, p in net.named_parameters() if p.grad is not None}


def test_checkpointed_region_with_point_and_the_layer_above_it():
    nets = [Mlp(), Mlp()]
    x, y = batch()
    for net, use in zip(nets, (False, True), strict=True):

        def run(h, net=net):
            h = net.points[1](torch.tanh(net.hidden[1](h)))
            return torch.tanh(net.hidden[2](h))

        def forward(x, net=net, run=run, use=use):
            h = net.points[0](torch.tanh(net.hidden[0](x)))
            h = checkpoint(run, h, use_reentrant=False) if use else run(h)
            return net.top(net.points[2](h))

        net.forward = forward
        attach(net, "dfa")
        cross_entropy(net(x), y).backward()
    assert_gradients(nets[1], {name: p.grad for name, p in nets[0].named_parameters()})


def test_whole_checkpoint_with_an_index():
    net, (x, _), (_, y) = Pooled(), batch(6), batch(3)
    sample = torch.tensor([0, 1, 1, 2, 0, 2])
    attachment = attach(net, "dfa")
    with attachment.samples(sample):
        output = checkpoint(net, x, sample, 3, use_reentrant=False)
    cross_entropy(output, y).backward()
    assert_gradients(net, pooled_rule(net, x, sample, y, attachment_of(net).head.feedback_matrix))


def test_reentrant_checkpoint_does_not_leave_layers_untrained_silently():
    """Its first run is under no_grad, so no point inside is seen: an error, or the right gradients."""
    net, (x, y) = Mlp(), batch()

    def run(h):
        return torch.tanh(net.hidden[1](net.points[0](torch.tanh(net.hidden[0](h)))))

    def forward(x):
        h = net.points[1](checkpoint(run, x, use_reentrant=True))
        return net.top(net.points[2](torch.tanh(net.hidden[2](h))))

    net.forward = forward
    attachment = attach(net, "dfa")
    try:
        cross_entropy(net(x.requires_grad_()), y).backward()
    except DFAError as error:
        assert "use_reentrant=False" in str(error)  # noqa: PT017
        return
    assert_gradients(net, mlp_rule(net, x.detach(), y, attachment.head.feedback_matrix, lambda e: e))


def test_target_given_after_a_checkpointed_pass():
    net, (x, y) = Mlp(), batch()
    attachment = attach(net, "drtp")
    output = checkpoint(net, x, use_reentrant=False)
    attachment.target = y
    cross_entropy(output, y).backward()
    assert_gradients(net, mlp_rule(net, x, y, attachment.head.feedback_matrix, lambda e: one_hot(y)))
