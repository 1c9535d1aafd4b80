"""Graph convolutions of PyG, with products ordered for sparse features and matrices that are built once.

Each class keeps the parameters and initial values of the PyG layer it builds on, and computes the same function of
them; tests/graphs compares the two. What changes is the order: ``A (X W)`` with X sparse, where
PyG multiplies X as a dense matrix and gathers neighbours edge by edge.

Letters: N nodes, a layer input is [N, i] (dense, or sparse in a first layer), its output [N, o].
"""

from __future__ import annotations

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn.dense.linear import Linear

from graphs.data.graph import Graph, gcn_adjacency, scaled_laplacian
from graphs.data.sparse import SparseMatrix

Features = Tensor | SparseMatrix


class GCNConv(pyg.GCNConv):
    """``A (X W) + b`` with A the normalised adjacency (Kipf and Welling 2017).

    `transformed` is where ``X W`` can be named, before neighbours are mixed.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.transformed = nn.Identity()

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """``[N, i] -> [N, o]``."""
        return graph.operator(gcn_adjacency) @ self.transformed(x @ self.lin.weight.t()) + self.bias


class ChebConv(pyg.ChebConv):
    """``sum_k T_k(L) X W_k + b`` with T_k the Chebyshev polynomials of the scaled Laplacian (Defferrard et al. 2016).

    Evaluated from the highest k down (Clenshaw), so that L multiplies matrices of the output's width.
    """

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """``[N, i] -> [N, o]``."""
        laplacian = graph.operator(scaled_laplacian)
        first, *higher = [x @ lin.weight.t() for lin in self.lins]
        if not higher:
            return first + self.bias
        after, last = torch.zeros_like(first), higher.pop()
        for term in reversed(higher):
            last, after = term + 2 * (laplacian @ last) - after, last
        return first + laplacian @ last - after + self.bias


class GATConv(nn.Module):
    """Attention over neighbours (Velickovic et al. 2018), self loops included: PyG's layer behind a projection.

    The projection, `lin` in PyG's layer, is a module of its own here so that it can take sparse features.
    """

    def __init__(self, in_channels: int, out_channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.project = Linear(in_channels, heads * out_channels, bias=False, weight_initializer="glorot")
        self.attend = pyg.GATConv(heads * out_channels, out_channels, heads=heads, dropout=dropout)
        self.attend.lin = nn.Identity()

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """``[N, i] -> [N, heads * o]``."""
        return self.attend(x @ self.project.weight.t(), graph.edge_index)
