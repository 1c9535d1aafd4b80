"""The layers of the click models above the embeddings, with the feedback points of the 2020 release.

Each computes the same as its counterpart in torchfm from the same weights, as tests/recsys checks, but without loops
over fields.

Letters: B rows of a batch, F fields, d width of an embedding, n = F d.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recsys.models.shared_norm import BatchNorm
from tinydfa import DFALayer


def pairwise_products(vectors: Tensor) -> Tensor:
    """Sum of the inner products of all pairs of fields (Rendle 2010), ``[B, F, d] -> [B, 1]``.

    Computed as half of (the square of the sum minus the sum of the squares).

    Example:
        >>> pairwise_products(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]))  # 11 + 17 + 39
        tensor([[67.]])
    """
    total = vectors.sum(dim=1)
    return 0.5 * (total.square().sum(dim=1, keepdim=True) - vectors.flatten(1).square().sum(dim=1, keepdim=True))


def perceptron(inputs: int, widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Hidden layers: linear, batch normalisation, ReLU, dropout, feedback point. ``[B, inputs] -> [B, widths[-1]]``.

    torchfm's linear layers have a bias, which the normalisation cancels. Its gradient is rounding noise, which Adam
    turns into full steps. So there is none here.
    """

    def layer(before: int, after: int) -> nn.Sequential:
        linear = nn.Linear(before, after, bias=False)
        parts: OrderedDict[str, nn.Module] = OrderedDict(linear=linear, norm=BatchNorm(after))
        parts["relu"] = nn.ReLU(inplace=True)
        if dropout > 0:
            parts["dropout"] = nn.Dropout(dropout)
        parts["point"] = DFALayer()
        return nn.Sequential(parts)

    return nn.Sequential(*(layer(before, after) for before, after in pairwise((inputs, *widths))))


class SelfAttention(nn.Module):
    """Attention of every field to all fields, ``[B, F, d] -> [B, F, d]``; queries, keys and values from one product."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.project.weight)  # these and the zeros are those of nn.MultiheadAttention
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, fields, width = x.shape
        split = self.project(x).view(batch, fields, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).reshape(batch, fields, width))


class LogarithmicLayer(nn.Module):
    """Neurons that multiply powers of their inputs: linear in the logarithm (Cheng et al. 2020).

    ``relu(expm1(W log1p(|x| + 1e-7)))``, ``[B, F, d] -> [B, d m]`` for m neurons. Neuron j of coordinate i is column
    ``i m + j``, the layout of the matrix product (in torchfm, column ``j d + i``).
    """

    def __init__(self, fields: int, neurons: int) -> None:
        super().__init__()
        self.linear = nn.Linear(fields, neurons, bias=False)
        nn.init.uniform_(self.linear.weight, -(fields**-0.5), fields**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        logarithms = torch.log1p(x.abs() + 1e-7).transpose(1, 2).flatten(0, 1)  # [B d, F]
        exponents = self.linear(logarithms)  # [B d, m]
        if torch.compiler.is_compiling():  # which decides itself what to compute in place
            return torch.relu(torch.expm1(exponents)).view(len(x), -1)
        return PositiveExpm1.apply(exponents).view(len(x), -1)


class PositiveExpm1(torch.autograd.Function):
    """``relu(expm1(y))`` in place: for [B, 15000] numbers, allocation takes longer than the computation."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        y.clamp_(min=0).expm1_()
        ctx.mark_dirty(y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (powers,) = ctx.saved_tensors
        return torch.addcmul(gradients[0], gradients[0], powers).mul_(powers > 0)
