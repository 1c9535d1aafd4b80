"""An error for nodes without a label: the labelled nodes' errors, spread along the edges (DFA-GNN).

Only labelled nodes have an error, so the full batch trains on a few rows. Errors of neighbours are alike; so each node
gets its neighbours' errors, at the size of a labelled node's, if its prediction less that error is one class:

    Z <- (1 - a) E + a S Z                          from Z = E, some times         equation 8
    ê  = eta z / |z|_1, eta the mean |e|_1 of labelled nodes                       at nodes without a label
    ê  = 0 unless exactly one class of y - ê is above a threshold                  equation 9

Here y is the softmax of the logits and E the gradient of cross-entropy: y less the label, zero at nodes without one.
The result stands in place of the loss's gradient at the logits, whatever the method. So the top layer learns from all
these errors by the exact gradient, as in the paper, backpropagation takes them further down, and a rule that broadcasts
projects them. Labelled nodes keep the gradient that they have without pseudo-errors.

Source: Zhao et al., NeurIPS 2024, arXiv 2406.02040. Its output is a sigmoid under binary cross-entropy; there, too, the
error is the prediction less the label.

Letters: N nodes, K classes, S the normalised adjacency, ``[N, N]``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphs.data.graph import Graph, gcn_adjacency


@torch.no_grad()
def output_gradient(logits: Tensor, graph: Graph, *, alpha: float, iterations: int, threshold: float) -> Tensor:
    """What the logits get in place of the gradient of the mean cross-entropy over training nodes.

    Args:
        logits: ``[N, K]``.
        graph: Its training nodes are the labelled ones.
        alpha: a, in (0, 1): how much of a node's error comes from its neighbours.
        iterations: How often errors are spread, at least once; they reach as many edges far.
        threshold: In (0, 1), what a class must exceed to count as predicted.

    Returns:
        ``[N, K]``, divided by the number of training nodes, as the mean is. Rows of training nodes equal the loss's
        gradient; rows of nodes that no error reaches are zero.
    """
    prediction = logits.softmax(dim=1)
    labelled = torch.zeros_like(graph.y, dtype=torch.bool).index_fill_(0, graph.train, True).unsqueeze(1)
    truth = F.one_hot(graph.y.clamp(min=0), logits.size(1))
    error = torch.where(labelled, prediction - truth, 0)
    size = error.abs().sum() / len(graph.train)
    pseudo = size * unit_rows(spread(error, graph, alpha, iterations))
    clear = ((prediction - pseudo) > threshold).sum(dim=1, keepdim=True) == 1
    return torch.where(labelled, error, pseudo * clear) / len(graph.train)


def spread(error: Tensor, graph: Graph, alpha: float, iterations: int) -> Tensor:
    """Errors ``[N, K]`` mixed with those of neighbours: equation 8."""
    adjacency, own, mixed = graph.operator(gcn_adjacency).matrix, (1 - alpha) * error, error
    for _ in range(iterations):
        mixed = torch.addmm(own, adjacency, mixed, alpha=alpha)
    return mixed


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by the sum of their absolute values; a row too small for floating-point numbers stays small."""
    return F.normalize(rows, p=1, dim=1, eps=torch.finfo(rows.dtype).tiny)
