import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from graphs.data.graph import gcn_adjacency
from graphs.models.networks import GCN, Encoder, build_model
from graphs.presets import METHODS, PRESETS, find_preset
from graphs.train import make_optimizer, train_epoch, training_target
from tinydfa import DFALayer, Method, attach


def test_dfa_gradient_of_the_gcn_equals_the_rule_written_by_hand(small):
    torch.manual_seed(0)
    model = GCN(12, 3, dropout=0.0)
    attachment = attach(model, "dfa", seed=4)
    F.cross_entropy(model(small)[small.train], small.y[small.train]).backward()

    joined = torch.zeros(25, 25)
    joined[small.edge_index[1], small.edge_index[0]] = 1
    joined += torch.eye(25)
    root = joined.sum(dim=1) ** -0.5
    A, x = root[:, None] * joined * root, small.x.to_dense()
    W1, b1, W2, b2 = (model.conv1.lin.weight, model.conv1.bias, model.conv2.lin.weight, model.conv2.bias)
    h = torch.relu(A @ x @ W1.t() + b1)  # [25, 16]
    logits = A @ h @ W2.t() + b2
    error = torch.zeros(25, 3)  # only training nodes enter the loss, a mean over 15
    error[small.train] = (logits.softmax(dim=1) - F.one_hot(small.y, 3))[small.train].detach() / 15
    delta = error @ attachment.head.feedback_matrix / 16**0.5 * (h > 0)  # not multiplied by A or W2
    torch.testing.assert_close(W1.grad, (A @ x).t().matmul(delta).t())
    torch.testing.assert_close(b1.grad, delta.sum(dim=0))
    torch.testing.assert_close(W2.grad, error.t() @ A @ h)


def test_shallow_gives_the_first_layer_no_gradient(small):
    model = GCN(12, 3, dropout=0.0)
    attach(model, "shallow")
    F.cross_entropy(model(small), small.y).backward()
    assert model.conv1.lin.weight.grad is None
    assert model.conv2.lin.weight.grad is not None


@pytest.mark.parametrize("model", ["cheb", "gcn", "spline", "gat", "dna"])
@pytest.mark.parametrize("method", METHODS)
def test_every_model_trains_by_every_method(small, model, method):
    torch.manual_seed(0)
    preset = find_preset(model=model, method=method)
    net = build_model(preset, small.features, small.classes)
    attachment = attach(net, method)
    optimizer = make_optimizer(net, preset)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for _ in range(2):
        if attachment.rule.needs_target:
            attachment.target = training_target(small)
        assert train_epoch(net, small, optimizer, preset) > 0
    first = next(iter(before))
    moved = not torch.equal(dict(net.named_parameters())[first], before[first])
    assert moved == (method is not Method.SHALLOW)


@pytest.mark.parametrize(("model", "points"), [("cheb", 1), ("gcn", 1), ("spline", 1), ("gat", 1), ("dna", 6)])
def test_each_hidden_layer_has_a_feedback_point(model, points):
    net = build_model(PRESETS[f"{model}_dfa"], 12, 3)
    assert sum(isinstance(module, DFALayer) for module in net.modules()) == points


def test_the_encoder_has_one_point_and_embeds_in_sixteen_dimensions(small):
    encoder = Encoder(12)
    assert encoder(small).shape == (25, 16)
    assert sum(isinstance(module, DFALayer) for module in encoder.modules()) == 1


def test_weight_decay_reaches_the_first_convolution_alone_where_the_preset_says_so():
    net = build_model(PRESETS["gcn_bp"], 12, 3)
    groups = make_optimizer(net, PRESETS["gcn_bp"]).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in net.conv1.parameters()}
    everything = make_optimizer(build_model(PRESETS["gat_bp"], 12, 3), PRESETS["gat_bp"]).param_groups
    assert [group["weight_decay"] for group in everything] == [5e-4]


def adjacency_by_hand(graph):
    """D^-1/2 (A + I) D^-1/2 by loops over edges."""
    dense = torch.eye(graph.nodes)
    for source, target in graph.edge_index.t().tolist():
        dense[target, source] = 1
    degree = dense.sum(dim=1)
    return dense / (degree[:, None] * degree).sqrt()


OTHERS = {
    "replace": lambda graph, edges: dataclasses.replace(graph, edge_index=edges),
    "with_edges": lambda graph, edges: graph.with_edges(edges),
    "replaced twice": lambda graph, edges: dataclasses.replace(dataclasses.replace(graph, name="a"), edge_index=edges),
    "copied and moved": lambda graph, edges: dataclasses.replace(copy.copy(graph).to("cpu"), edge_index=edges),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_graph_made_from_another_computes_with_its_own_edges(small, other):
    small.operator(gcn_adjacency)
    edges = small.edge_index[:, small.edge_index.sum(dim=0) % 2 == 0]
    made = other(small, edges)
    torch.testing.assert_close(made.operator(gcn_adjacency).to_dense(), adjacency_by_hand(made))
    assert made.edge_index is edges
    torch.testing.assert_close(small.operator(gcn_adjacency).to_dense(), adjacency_by_hand(small))


def test_edges_that_are_changed_in_place_are_seen(small):
    before = small.operator(gcn_adjacency).to_dense()
    small.edge_index[:, 0] = torch.tensor([3, 4])
    after = small.operator(gcn_adjacency).to_dense()
    torch.testing.assert_close(after, adjacency_by_hand(small))
    assert not torch.equal(before, after)


def test_the_adjacency_is_built_once_per_graph(small):
    assert small.operator(gcn_adjacency) is small.operator(gcn_adjacency)
    assert small.with_edges(small.edge_index[:, :4]).operator(gcn_adjacency) is not small.operator(gcn_adjacency)
