"""Splitting the edges of a graph for link prediction, so that no held-out edge is seen in training.

Letters: M undirected edges of the whole graph; an undirected edge is a column (smaller node, larger node).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphs.data.graph import Graph


@dataclass(frozen=True)
class LinkSplit:
    """Edges of a graph, parted.

    Attributes:
        train: Directed training edges, both directions of each, ``[2, 2 M_train]``.
        test: Held-out undirected edges, ``[2, M_test]``.
        test_absent: As many pairs of nodes that the whole graph does not join.
    """

    train: Tensor
    test: Tensor
    test_absent: Tensor


def split_links(graph: Graph, val: float, test: float, seed: int) -> LinkSplit:
    """Hold out the shares `val` and `test` of the undirected edges, rounded down, at random.

    Nothing is chosen on validation edges here, so they are left out; training goes without them, as published.

    Raises:
        ValueError: the shares leave no edge for training.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ValueError(f"val {val} and test {test} must leave some edges for training")
    generator = np.random.default_rng(seed)
    edges = graph.edge_index.cpu().numpy()
    edges = edges[:, edges[0] < edges[1]]
    edges = edges[:, generator.permutation(edges.shape[1])]
    n_val, n_test = int(val * edges.shape[1]), int(test * edges.shape[1])
    parts = np.split(edges, [n_val, n_val + n_test], axis=1)
    _, test_edges, train = (torch.from_numpy(part) for part in parts)
    absent = absent_pairs(edges, graph.nodes, n_val + n_test, generator)
    both = torch.cat([train, train.flip(0)], dim=1)
    device = graph.edge_index.device
    return LinkSplit(*(tensor.to(device) for tensor in (both, test_edges, absent[:, n_val:])))


def absent_pairs(edges: np.ndarray, nodes: int, count: int, generator: np.random.Generator) -> Tensor:
    """`count` distinct pairs (smaller, larger) ``[2, count]`` that are not among the undirected `edges`."""
    present = set((edges[0] * nodes + edges[1]).tolist())
    if nodes * (nodes - 1) // 2 - len(present) < count:
        raise ValueError(f"the graph lacks fewer than {count} edges: it is too dense to draw absent pairs from")
    found: dict[int, None] = {}
    while len(found) < count:
        pairs = np.sort(generator.integers(0, nodes, size=(2, 2 * count)), axis=0)
        pairs = pairs[:, pairs[0] < pairs[1]]
        found.update((code, None) for code in (pairs[0] * nodes + pairs[1]).tolist() if code not in present)
    code = torch.tensor(list(found)[:count])
    return torch.stack([code // nodes, code % nodes])
