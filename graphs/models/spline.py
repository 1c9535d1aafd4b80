"""SplineConv: convolution with a continuous B-spline kernel (Fey et al. 2018, equations 2 and 3), in plain torch.

An edge from j to i carries a pseudo-coordinate u in [0, 1]^dim. The kernel holds one weight matrix W_p per knot p of a
grid with `kernel_size` knots a side, and an edge mixes the 2^dim knots around u with products of linear hats:

    out_i = mean over j in N(i) of  sum_p B_p(u_ij) x_j W_p  +  x_i W_root + bias,   B_p(u) = prod_d hat(v_d - p_d),
    v = u (kernel_size - 1),  hat(t) = max(0, 1 - |t|)

which is the open B-spline basis of degree 1. Since u does not change, the B_p are entries of constant sparse matrices.
Parameters and initial values are those of PyG's layer, which needs a compiled extension.

Letters: N nodes, E edges, K = kernel_size ** dim knots, i inputs, o outputs of the layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import uniform

from graphs.data.graph import Graph
from graphs.data.sparse import SparseMatrix


def spline_basis(pseudo: Tensor, kernel_size: int) -> tuple[Tensor, Tensor]:
    """Knots that touch each edge, and how much of each.

    Args:
        pseudo: Pseudo-coordinates, ``[E, dim]`` in [0, 1].
        kernel_size: Knots a side, at least 2.

    Returns:
        Amounts ``[E, 2^dim]``, which add up to 1 on each edge, and knot numbers ``[E, 2^dim]`` in 0..K-1; the first
        dimension's knot counts ones, the second's `kernel_size`, and so on.

    Raises:
        ValueError: a coordinate lies outside [0, 1], or `kernel_size` is below 2.

    Example:
        >>> spline_basis(torch.tensor([[0.25]]), kernel_size=3)
        (tensor([[0.5000, 0.5000]]), tensor([[0, 1]]))
    """
    if kernel_size < 2:
        raise ValueError(f"kernel_size is {kernel_size}; a spline of degree 1 needs at least 2 knots a side")
    if pseudo.numel() and not (pseudo.min() >= 0 and pseudo.max() <= 1):
        low, high = pseudo.min().item(), pseudo.max().item()
        raise ValueError(f"pseudo-coordinates lie in [{low:g}, {high:g}] and must lie in [0, 1]: normalise them")
    position = pseudo * (kernel_size - 1)
    below = position.floor().clamp(max=kernel_size - 2)
    above = position - below  # share of the knot above, 0..1
    corners = torch.tensor(list(itertools.product((0, 1), repeat=pseudo.size(1))), device=pseudo.device)  # [2^dim, dim]
    shares = torch.where(corners == 1, above.unsqueeze(1), 1 - above.unsqueeze(1))  # [E, 2^dim, dim]
    strides = kernel_size ** torch.arange(pseudo.size(1), device=pseudo.device)
    return shares.prod(dim=2), ((below.long().unsqueeze(1) + corners) * strides).sum(dim=2)


def spline_operator(graph: Graph, coordinate: Callable[[Graph], Tensor], kernel_size: int) -> SparseMatrix:
    """The mean over neighbours of the basis, ``[N, N * K]``: column j K + p holds B_p(u_ij) / |N(i)|."""
    pseudo = graph.operator(coordinate)
    amount, knot = spline_basis(pseudo, kernel_size)
    knots = kernel_size ** pseudo.size(1)
    source, target = graph.edge_index
    neighbours = torch.bincount(target, minlength=graph.nodes)[target]
    column = source.unsqueeze(1) * knots + knot
    row = target.unsqueeze(1).expand_as(column)
    value = amount / neighbours.unsqueeze(1)
    return SparseMatrix(row.flatten(), column.flatten(), value.flatten(), (graph.nodes, graph.nodes * knots))


class SplineConv(nn.Module):
    """See the module.

    Args:
        in_channels: i.
        out_channels: o.
        coordinate: Pseudo-coordinates of a graph's edges, ``[E, dim]``, such as `graphs.data.graph.target_indegree`.
        dim: Number of pseudo-coordinates.
        kernel_size: Knots a side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        coordinate: Callable[[Graph], Tensor],
        dim: int = 1,
        kernel_size: int = 2,
    ) -> None:
        super().__init__()
        self.coordinate, self.kernel_size = coordinate, kernel_size
        self.weight = nn.Parameter(torch.empty(kernel_size**dim, in_channels, out_channels))
        self.lin = Linear(in_channels, out_channels, bias=False, weight_initializer="uniform")
        self.bias = nn.Parameter(torch.zeros(out_channels))
        uniform(self.weight.size(0) * self.weight.size(1), self.weight)

    def forward(self, x: Tensor | SparseMatrix, graph: Graph) -> Tensor:
        """``[N, i] -> [N, o]``."""
        operator = graph.operator(spline_operator, self.coordinate, self.kernel_size)
        knots, i, o = self.weight.shape
        by_knot = self.weight.transpose(0, 1).reshape(i, knots * o)
        messages = (x @ by_knot).view(-1, o)  # [N * K, o]
        return operator @ messages + x @ self.lin.weight.t() + self.bias
