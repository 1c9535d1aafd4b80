"""DNAConv: each node attends to all earlier representations of its neighbours (Fey 2019, arXiv 1904.04849).

PyG copies the representations of both ends to every edge and projects them there: a copy of [E, L, channels] and about
five times the arithmetic. Here nodes are projected once, and the two products per edge are products with one sparse
pattern: a score is an entry of ``Q K^T`` sampled at the pattern, an output row is a row of ``attention @ V``. Memory
per edge falls from L x channels to L x heads numbers. Parameters, and the function computed, are PyG's.

Letters: N nodes, E entries of the normalised adjacency (self loops included), L earlier representations, H heads,
d = channels / H. Rows of the pattern are pairs (node i, head h), columns triples (node j, layer l, head h), so one
row (i, h) holds, for every neighbour j, the L entries of an edge side by side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor

from graphs.graph import Graph, gcn_adjacency
from graphs.sparse import SparseMatrix


@dataclass(frozen=True)
class Pattern:
    """The places (node, head) x (node, layer, head) at which attention is computed.

    Attributes:
        places: The pattern, ``[N H, N L H]``, with E H L entries; their values mean nothing.
        weight: Entry of the normalised adjacency for each edge and head, ``[E H, 1]``.
    """

    places: SparseMatrix
    weight: Tensor


def attention_pattern(graph: Graph, heads: int, layers: int) -> Pattern:
    """The pattern of `graph` for H heads and L representations."""
    adjacency = graph.operator(gcn_adjacency)
    head = torch.arange(heads, device=adjacency.row.device).view(1, heads, 1)
    layer = torch.arange(layers, device=head.device).view(1, 1, layers)
    row = (adjacency.row.view(-1, 1, 1) * heads + head).expand(-1, -1, layers)
    column = (adjacency.column.view(-1, 1, 1) * layers + layer) * heads + head
    value = adjacency.value.view(-1, 1, 1).expand_as(column)
    shape = (graph.nodes * heads, graph.nodes * layers * heads)
    places = SparseMatrix(row.flatten(), column.flatten(), value.flatten(), shape)
    return Pattern(places, places.value.view(-1, layers)[:, :1].contiguous())


class DNAConv(pyg.DNAConv):
    """PyG's layer with its products in another order; see the module."""

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """``[N, L, channels] -> [N, channels]``, from all earlier representations of the nodes."""
        attention = self.multi_head
        nodes, layers, channels = x.shape
        heads = attention.heads
        pattern = graph.operator(attention_pattern, heads, layers)
        query = attention.lin_q(x[:, -1:]).view(nodes * heads, -1)
        key, value = (out.view(nodes * layers * heads, -1) for out in project(x, attention.lin_k, attention.lin_v))

        score = _Scores.apply(pattern.places, query / math.sqrt(channels // heads), key).view(-1, layers)
        share = F.dropout(restricted_softmax(score), attention.dropout, self.training)
        mixed = _Mixture.apply(pattern.places, (share * pattern.weight).view(-1), value)
        return mixed.view(nodes, channels)


def project(x: Tensor, *linears: Any) -> list[Tensor]:
    """PyG's grouped linear maps of one input, multiplied at once: ``[..., channels] -> [rows, channels]`` each."""
    groups, inputs, outputs = linears[0].weight.shape
    by_group = x.reshape(-1, groups, inputs).transpose(0, 1)
    products = (by_group @ torch.cat([linear.weight for linear in linears], dim=2)).transpose(0, 1)
    parts = products.split(outputs, dim=2)
    return [part.reshape(-1, groups * outputs) + linear.bias for part, linear in zip(parts, linears, strict=True)]


def restricted_softmax(score: Tensor) -> Tensor:
    """Softmax over the last dimension with one more, absent, entry of score 0: shares may add up to less than 1."""
    largest = score.detach().amax(dim=-1, keepdim=True).clamp(min=0)
    power = (score - largest).exp()
    return power / (power.sum(dim=-1, keepdim=True) + (-largest).exp())


class _Scores(torch.autograd.Function):
    """``left @ right.T`` at the places of a pattern: ``[n, d], [m, d] -> [entries]``."""

    @staticmethod
    def forward(ctx: Any, places: SparseMatrix, left: Tensor, right: Tensor) -> Tensor:
        ctx.places = places
        ctx.save_for_backward(left, right)
        return _sampled(places, left, right)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        left, right = ctx.saved_tensors
        entries = ctx.places.with_values(gradient.contiguous())
        return None, entries.matrix @ right, entries.transposed @ left


class _Mixture(torch.autograd.Function):
    """Rows of `right` mixed by the entries of a pattern: ``[entries], [m, d] -> [n, d]``."""

    @staticmethod
    def forward(ctx: Any, places: SparseMatrix, entry: Tensor, right: Tensor) -> Tensor:
        ctx.entries = places.with_values(entry)
        ctx.save_for_backward(right)
        return ctx.entries.matrix @ right

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        (right,) = ctx.saved_tensors
        gradient = gradient.contiguous()
        return None, _sampled(ctx.entries, gradient, right), ctx.entries.transposed @ gradient


def _sampled(places: SparseMatrix, left: Tensor, right: Tensor) -> Tensor:
    """``(left @ right.T)`` at the places of a pattern, without the rest of it."""
    if places.matrix.layout == torch.sparse_csr:
        return torch.sparse.sampled_addmm(places.matrix, left, right.t(), beta=0.0).values()
    return (left[places.row] * right[places.column]).sum(dim=1)
