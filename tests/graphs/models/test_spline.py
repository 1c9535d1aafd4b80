"""SplineConv against its definition (Fey et al. 2018, equations 2 and 3), written as loops."""

import itertools
from dataclasses import replace

import pytest
import torch

from graphs.data.graph import target_indegree
from graphs.data.sparse import SparseMatrix
from graphs.models.spline import SplineConv, spline_basis


def hat(knot, coordinate, kernel_size):
    """B-spline of degree 1 with knots at 0, 1/(k-1), ..., 1."""
    width = 1 / (kernel_size - 1)
    return max(0.0, 1 - abs(coordinate - knot * width) / width)


def convolution_by_definition(layer, x, edge_index, pseudo, kernel_size):
    nodes, dim = x.size(0), pseudo.size(1)
    out = torch.zeros(nodes, layer.weight.size(2), dtype=torch.float64)
    for i in range(nodes):
        neighbours = [e for e in range(edge_index.size(1)) if edge_index[1, e] == i]
        for e in neighbours:
            x_j = x[edge_index[0, e]].double()
            for knots in itertools.product(range(kernel_size), repeat=dim):
                basis, number = 1.0, 0
                for axis, knot in enumerate(knots):
                    basis *= hat(knot, pseudo[e, axis].item(), kernel_size)
                    number += knot * kernel_size**axis
                out[i] += basis * (x_j @ layer.weight[number].double()) / len(neighbours)
        out[i] += layer.lin.weight.double() @ x[i].double() + layer.bias.double()
    return out.float()


@pytest.mark.parametrize(("dim", "kernel_size"), [(1, 2), (1, 5), (2, 2), (2, 3), (3, 2)])
def test_layer_equals_the_definition(small, dim, kernel_size):
    pseudo = torch.rand(small.edge_index.size(1), dim, generator=torch.Generator().manual_seed(2))
    pseudo[0], pseudo[1] = 0.0, 1.0  # both ends of the range
    layer = SplineConv(12, 4, lambda graph: pseudo, dim=dim, kernel_size=kernel_size)
    layer.bias.data.normal_()
    expected = convolution_by_definition(layer, small.x.to_dense(), small.edge_index, pseudo, kernel_size)
    torch.testing.assert_close(layer(small.x, small), expected, rtol=1e-4, atol=1e-5)


def test_two_knots_blend_two_weights(small):
    layer = SplineConv(12, 4, target_indegree)
    x, u = small.x.to_dense(), target_indegree(small)
    source, target = small.edge_index
    message = (1 - u) * (x[source] @ layer.weight[0]) + u * (x[source] @ layer.weight[1])
    mean = torch.zeros(25, 4).index_add_(0, target, message)
    mean = mean / torch.bincount(target, minlength=25).clamp(min=1).unsqueeze(1)
    torch.testing.assert_close(layer(small.x, small), mean + x @ layer.lin.weight.t() + layer.bias)


def test_sparse_and_dense_features_give_the_same(small):
    layer = SplineConv(12, 4, target_indegree)
    torch.testing.assert_close(layer(small.x, small), layer(small.x.to_dense(), small))


def test_amounts_of_an_edge_add_up_to_one():
    amount, knot = spline_basis(torch.rand(50, 3), kernel_size=4)
    torch.testing.assert_close(amount.sum(dim=1), torch.ones(50))
    assert knot.min() >= 0
    assert knot.max() < 64


def test_coordinates_outside_the_unit_range_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1.5\].*normalise"):
        spline_basis(torch.tensor([[0.0], [1.5]]), kernel_size=2)


def test_a_single_knot_is_refused():
    with pytest.raises(ValueError, match="at least 2 knots"):
        spline_basis(torch.zeros(1, 1), kernel_size=1)


def test_a_graph_without_edges_keeps_the_root_weight(small):
    bare = replace(small, edge_index=torch.empty(2, 0, dtype=torch.long))
    layer = SplineConv(12, 4, lambda graph: torch.empty(0, 1))
    torch.testing.assert_close(layer(SparseMatrix.from_dense(torch.ones(25, 12)), bare)[0], layer.lin.weight.sum(dim=1))
