"""A graph with node features and labels, and the matrices that graph layers build from it, each built once.

Letters: N nodes, E directed edges (each undirected edge stored both ways), f features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from graphs.data.sparse import SparseMatrix

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """One graph, its labels and its split.

    Attributes:
        name: Name of the data set.
        x: Node features, ``[N, f]``, sparse.
        edge_index: Directed edges from row 0 to row 1, ``[2, E]``, int64, without self loops or duplicates.
        y: Class of each node, ``[N]``, int64 in 0..K-1.
        classes: K.
        train, val, test: Node ids of the split, int64, disjoint.
    """

    name: str
    x: SparseMatrix
    edge_index: Tensor
    y: Tensor
    classes: int
    train: Tensor
    val: Tensor
    test: Tensor
    _memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # each graph has its own

    @property
    def nodes(self) -> int:
        """N."""
        return self.x.shape[0]

    @property
    def features(self) -> int:
        """f."""
        return self.x.shape[1]

    def operator(self, build: Callable[..., T], *arguments: Any) -> T:
        """``build(self, *arguments)``, computed at the first call and kept until edges are changed in place."""
        key = (build, arguments)
        if self._memo.get("version") != (version := _version(self.edge_index)):
            self._memo.clear()
            self._memo["version"] = version
        if key not in self._memo:
            self._memo[key] = build(self, *arguments)
        return self._memo[key]

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("x", "edge_index", "y", "train", "val", "test")}
        return replace(self, **moved)

    def with_edges(self, edge_index: Tensor) -> Graph:
        """The same nodes joined by other edges ``[2, E]``."""
        return replace(self, edge_index=edge_index)

    def __copy__(self) -> Graph:
        """The same graph, which shares all tensors and keeps matrices of its own."""
        return replace(self)


def _version(tensor: Tensor) -> int:
    """A number that grows when `tensor` is changed in place."""
    return 0 if tensor.is_inference() else tensor._version


def gcn_adjacency(graph: Graph) -> SparseMatrix:
    """``D^-1/2 (A + I) D^-1/2``, ``[N, N]``, with D the degrees of A + I (Kipf and Welling 2017, equation 2)."""
    loops = torch.arange(graph.nodes, device=graph.edge_index.device)
    source, target = (torch.cat([ends, loops]) for ends in graph.edge_index)
    inverse_root = torch.bincount(target, minlength=graph.nodes).float().rsqrt()
    value = inverse_root[source] * inverse_root[target]
    return SparseMatrix(target, source, value, (graph.nodes, graph.nodes))


def scaled_laplacian(graph: Graph) -> SparseMatrix:
    """``2 L / 2 - I = -D^-1/2 A D^-1/2``, ``[N, N]``: the normalised Laplacian with its largest eigenvalue taken as 2
    (Defferrard et al. 2016). Isolated nodes have empty rows."""
    source, target = graph.edge_index
    degree = torch.bincount(target, minlength=graph.nodes).float()
    inverse_root = torch.where(degree > 0, degree.rsqrt(), torch.zeros_like(degree))
    return SparseMatrix(target, source, -inverse_root[source] * inverse_root[target], (graph.nodes, graph.nodes))


def target_indegree(graph: Graph) -> Tensor:
    """Pseudo-coordinate of each edge, ``[E, 1]`` in [0, 1]: in-degree of the edge's target over the largest one."""
    target = graph.edge_index[1]
    degree = torch.bincount(target, minlength=graph.nodes).float()
    return (degree[target] / degree[target].max().clamp(min=1)).unsqueeze(1)
