"""DNAConv: each node attends to all earlier representations of its neighbours (Fey 2019, arXiv 1904.04849).

PyG copies the representations of both ends to every edge and projects them there. Here nothing is projected but
nodes, once. A query meets a key in ``q . (W_k x + b_k) = (W_k^T q) . x + q . b_k``, so where a head's channels are
projected among themselves the projection moves from all L representations to the query; the one of values moves
behind the mixture in the same way. What is left per edge are the two products with one sparse pattern: a score is an
entry of ``Q X^T`` at a place of the pattern, an output row is a row of ``attention @ X``. Memory per edge falls from
L x channels to L x heads numbers. Parameters, and the function computed, are PyG's.

Letters: N nodes, E entries of the normalised adjacency (self loops included), L earlier representations, H heads,
d = channels / H. Rows and columns of the pattern are pairs (node, head). Every representation uses the same pattern;
attention is ``[L, E H]``, so that a softmax over L runs over whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor

from graphs.data.graph import Graph, gcn_adjacency
from graphs.data.sparse import Pattern, SparseMatrix


def attention_places(graph: Graph, heads: int) -> SparseMatrix:
    """The normalised adjacency of `graph` for each of H heads, ``[N H, N H]``, with E H entries."""
    adjacency = graph.operator(gcn_adjacency)
    head = torch.arange(heads, device=adjacency.row.device)
    row, column = (ends.unsqueeze(1) * heads + head for ends in (adjacency.row, adjacency.column))
    value = adjacency.value.unsqueeze(1).expand_as(row)
    size = graph.nodes * heads
    return SparseMatrix(row.flatten(), column.flatten(), value.flatten(), (size, size))


class DNAConv(pyg.DNAConv):
    """PyG's layer with its products in another order; see the module."""

    def forward(self, layers: Sequence[Tensor], graph: Graph) -> Tensor:
        """L earlier representations of the nodes, ``[N, channels]`` each, the latest last, ``-> [N, channels]``."""
        heads = self.multi_head
        places = graph.operator(attention_places, heads.heads)
        if heads.groups % heads.heads == 0:
            query, constant = input_query(heads, layers[-1])
            return project_mixture(heads, *attend(heads, places, query, constant, layers, layers))
        keys, values = ([linear(x) for x in layers] for linear in (heads.lin_k, heads.lin_v))
        query = heads.lin_q(layers[-1]) * head_scale(heads)
        return attend(heads, places, query, query.new_zeros(len(query), heads.heads), keys, values)[0]


def head_scale(heads: Any) -> float:
    """What PyG's `MultiHead` multiplies its scores by, 1 / sqrt(d)."""
    return math.sqrt(heads.heads / heads.out_channels)


def input_query(heads: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What meets an input in place of a key: ``score = query . x_j + constant``, ``[N, channels]`` and ``[N, H]``."""
    asked, key = head_blocks(heads.lin_q, heads.heads), head_blocks(heads.lin_k, heads.heads)
    b_q, b_k = (bias_of(linear).view(heads.heads, 1, -1) for linear in (heads.lin_q, heads.lin_k))
    back = torch.cat([key, b_k], dim=1).transpose(1, 2) * head_scale(heads)  # [H, d, d + 1]
    x = split_heads(x, heads.heads)
    weight, bias = asked @ back, b_q @ back
    query, constant = (torch.baddbmm(b, x, w) for b, w in zip(cut(bias), cut(weight), strict=True))
    return join_heads(query), join_heads(constant)


def project_mixture(heads: Any, mixed: Tensor, total: Tensor) -> Tensor:
    """Values of mixed inputs, ``[N, channels]``; a head's bias counts as often as its attention adds up to."""
    blocks, bias = head_blocks(heads.lin_v, heads.heads), bias_of(heads.lin_v).view(heads.heads, 1, -1)
    return torch.addmm(join_heads(split_heads(mixed, heads.heads) @ blocks), total, torch.block_diag(*bias))


def cut(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """All but the last column, and the last."""
    return tensor[..., :-1], tensor[..., -1:]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``[N, channels] -> [H, N, d]``, in memory too: batched products of strided matrices are slow."""
    return x.view(len(x), heads, -1).transpose(0, 1).contiguous()


def join_heads(x: Tensor) -> Tensor:
    """``[H, N, d] -> [N, channels]``."""
    return x.transpose(0, 1).flatten(1)


def head_blocks(linear: Any, heads: int) -> Tensor:
    """The weight of a grouped linear map as one block a head, ``[H, d, d]``; each head has whole groups."""
    groups, size, _ = linear.weight.shape
    each = groups // heads
    blocks = linear.weight.new_zeros(heads, each, size, each, size)
    blocks.diagonal(dim1=1, dim2=3).copy_(linear.weight.view(heads, each, size, size).permute(0, 2, 3, 1))
    return blocks.view(heads, each * size, each * size)


def bias_of(linear: Any) -> Tensor:
    """The bias of a grouped linear map, zeros where it has none."""
    return linear.weight.new_zeros(linear.out_channels) if linear.bias is None else linear.bias


def attend(
    heads: Any, places: SparseMatrix, query: Tensor, constant: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Mixtures of the neighbours' values, ``[N, channels]``, and the sum of each head's attention, ``[N, H]``.

    Args:
        heads: PyG's `MultiHead`.
        places: See `attention_places`.
        query: ``[N, channels]``.
        constant: What is added to a node's scores, ``[N, H]``.
        keys, values: L of each, ``[N, channels]``.
    """
    size = query.shape[1] // heads.heads
    query, *tables = (table.reshape(-1, size) for table in (query, *keys, *values))
    keys, values = tables[: len(keys)], tables[len(keys) :]
    scores = _Scores.apply(places.pattern, query, constant.flatten(), *keys)
    share = drop(scores.softmax(dim=0)[1:], heads.dropout, heads.training)
    mixed, total = _Mixture.apply(places.pattern, share * places.value, *values)
    return mixed.view(len(constant), -1), total.view_as(constant)


def drop(share: Tensor, p: float, training: bool) -> Tensor:
    """Dropout of ``[L, E H]``, drawn entry by entry."""
    if not training or p == 0:
        return share
    return share * F.dropout(share.new_ones(share.shape[::-1]), p).t()


class _Scores(torch.autograd.Function):
    """Scores behind a row of zeros, the absent entry of PyG's restricted softmax: ``[1 + L, entries]``.

    Row 1 + l holds ``left @ rights[l].T + constant`` at the places of a pattern, ``[n, d], [n], L x [m, d]``.
    """

    @staticmethod
    def forward(ctx: Any, pattern: Pattern, left: Tensor, constant: Tensor, *rights: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(left, *rights)
        scores = left.new_zeros(1 + len(rights), len(pattern))
        add_products(pattern, scores[1:], left, constant, rights)
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        left, *rights = ctx.saved_tensors
        gradient = gradient[1:].contiguous()
        mixed, total = mixture(ctx.pattern, gradient, rights)
        return None, mixed, total, *mixtures_back(ctx.pattern, gradient, left, ctx.needs_input_grad[3:])


class _Mixture(torch.autograd.Function):
    """Rows of `rights` mixed by the entries of a pattern, and the sums of entries: ``[n, d]``, ``[n]``.

    Entries are ``[L, entries]``, `rights` L times ``[m, d]``.
    """

    @staticmethod
    def forward(ctx: Any, pattern: Pattern, entries: Tensor, *rights: Tensor) -> tuple[Tensor, Tensor]:
        ctx.pattern = pattern
        ctx.save_for_backward(entries, *rights)
        return mixture(pattern, entries, rights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, gradient_total: Tensor) -> tuple[Tensor | None, ...]:
        entries, *rights = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_entries = torch.empty_like(entries)
        add_products(ctx.pattern, of_entries, gradient, gradient_total, rights)
        return None, of_entries, *mixtures_back(ctx.pattern, entries, gradient, ctx.needs_input_grad[2:])


def add_products(pattern: Pattern, out: Tensor, left: Tensor, constant: Tensor, rights: Sequence[Tensor]) -> None:
    """Write ``left @ right.T + constant`` at the places of a pattern to `out`, ``[L, entries]``."""
    out.copy_(constant.index_select(0, pattern.row).expand_as(out))
    for row, right in zip(out, rights, strict=True):
        pattern.add_dots(row, left, right)


def mixture(pattern: Pattern, entries: Tensor, rights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """``sum_l entries[l] @ rights[l]``, ``[n, d]``, and the sum of each row's entries, ``[n]``."""
    mixed = pattern.mix(entries[0], rights[0])
    for row, right in zip(entries[1:], rights[1:], strict=True):
        mixed += pattern.mix(row, right)
    return mixed, pattern.sum_rows(entries.sum(dim=0))


def mixtures_back(pattern: Pattern, entries: Tensor, left: Tensor, wanted: Sequence[bool]) -> list[Tensor | None]:
    """``entries[l].T @ left`` for each l that is wanted, ``[m, d]``."""
    return [pattern.mix_back(row, left) if want else None for row, want in zip(entries, wanted, strict=True)]
