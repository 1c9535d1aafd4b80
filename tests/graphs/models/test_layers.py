"""Layers against PyG's own, on dense features and edge lists: the same function, the same gradients."""

import pytest
import torch
import torch_geometric.nn as pyg
from torch_geometric.transforms import TargetIndegree

from graphs.data.graph import target_indegree
from graphs.models.dna import DNAConv
from graphs.models.layers import ChebConv, GATConv, GCNConv


def outputs_and_gradients(layer, *inputs):
    out = layer(*inputs)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    (out * weight).sum().backward()
    return out, [p.grad for _, p in sorted(layer.named_parameters())]


def assert_same_layer(ours, theirs, graph, our_x, their_x):
    our_out, our_gradients = outputs_and_gradients(ours, our_x, graph)
    their_out, their_gradients = outputs_and_gradients(theirs, their_x, graph.edge_index)
    torch.testing.assert_close(our_out, their_out, rtol=1e-4, atol=1e-5)
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_gcn_on_sparse_features_equals_pyg_on_dense_ones(small):
    ours, theirs = GCNConv(12, 5), pyg.GCNConv(12, 5)
    theirs.load_state_dict(ours.state_dict())
    assert_same_layer(ours, theirs, small, small.x, small.x.to_dense())


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_cheb_equals_pyg_at_any_order(small, order):
    ours, theirs = ChebConv(12, 5, K=order), pyg.ChebConv(12, 5, K=order)
    theirs.load_state_dict(ours.state_dict())
    assert_same_layer(ours, theirs, small, small.x, small.x.to_dense())


def test_gat_equals_pyg(small):
    ours, theirs = GATConv(12, 4, heads=3, dropout=0.0), pyg.GATConv(12, 4, heads=3)
    parameters = {name.removeprefix("attend."): value for name, value in ours.state_dict().items()}
    parameters["lin.weight"] = parameters.pop("project.weight")
    theirs.load_state_dict(parameters)
    out, _ = outputs_and_gradients(ours, small.x, small)
    expected, _ = outputs_and_gradients(theirs, small.x.to_dense(), small.edge_index)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(ours.project.weight.grad, theirs.lin.weight.grad)
    torch.testing.assert_close(ours.attend.att_src.grad, theirs.att_src.grad)


class Stacked(DNAConv):
    """Our layer, called as PyG's is."""

    def forward(self, x, graph):
        return super().forward(x.unbind(1), graph)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize(("heads", "groups"), [(4, 8), (4, 4), (1, 8), (1, 1), (4, 2), (4, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_dna_equals_pyg_and_so_do_the_gradients_of_its_input(small, layers, heads, groups, bias):
    torch.manual_seed(0)
    ours, theirs = (kind(16, heads=heads, groups=groups, bias=bias) for kind in (Stacked, pyg.DNAConv))
    theirs.load_state_dict(ours.state_dict())
    our_x = torch.randn(25, layers, 16).requires_grad_()
    their_x = our_x.detach().clone().requires_grad_()
    assert_same_layer(ours, theirs, small, our_x, their_x)
    torch.testing.assert_close(our_x.grad, their_x.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1e-3, 30.0, 1e3])
def test_dna_equals_pyg_at_scores_of_any_size(small, size):
    torch.manual_seed(0)
    ours, theirs = Stacked(16, heads=4, groups=8).double(), pyg.DNAConv(16, heads=4, groups=8).double()
    theirs.load_state_dict(ours.state_dict())
    x = size * torch.randn(25, 3, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(x, small), theirs(x, small.edge_index), rtol=1e-4, atol=1e-6 * size)


@pytest.mark.parametrize(("heads", "groups"), [(4, 8), (4, 2)])
def test_dna_without_compressed_rows_gives_the_same(small, monkeypatch, heads, groups):
    layer, x = Stacked(16, heads=heads, groups=groups), torch.randn(25, 2, 16)
    expected, gradients = outputs_and_gradients(layer, x, small)
    gradients = [gradient.clone() for gradient in gradients]
    layer.zero_grad()
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    out, others = outputs_and_gradients(layer, x, small.to("cpu"))
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-5)


def test_dna_drops_attention_in_training_only(small):
    layer, x = Stacked(16, heads=4, groups=8, dropout=0.8), torch.randn(25, 2, 16)
    assert not torch.equal(layer(x, small), layer(x, small))
    layer.eval()
    assert torch.equal(layer(x, small), layer(x, small))


def test_target_indegree_equals_pyg(small):
    from torch_geometric.data import Data

    data = TargetIndegree()(Data(edge_index=small.edge_index, num_nodes=25))
    torch.testing.assert_close(target_indegree(small), data.edge_attr)
