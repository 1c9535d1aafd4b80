"""The parts that the click models share above their embeddings, with the feedback points of the 2020 release.

Each computes what the layer of that name in torchfm computes, from the same weights; tests/recsys compares the two.
What differs is the order of the products: a cross network is one product instead of one a layer, and nothing loops over
fields.

Letters: B rows of a batch, F fields, d width of an embedding, n = F d.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from tinydfa import DFALayer, Method


def pairwise_products(vectors: Tensor) -> Tensor:
    """Sum of the inner products of all pairs of fields (Rendle 2010), ``[B, F, d] -> [B, 1]``.

    Computed as half of (the square of the sum minus the sum of the squares).

    Example:
        >>> pairwise_products(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]))  # 11 + 17 + 39
        tensor([[67.]])
    """
    total = vectors.sum(dim=1)
    return 0.5 * (total.square().sum(dim=1, keepdim=True) - vectors.flatten(1).square().sum(dim=1, keepdim=True))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the rows of all processes, so that they normalise as one would.

    torch has this for GPUs only (`nn.SyncBatchNorm`).
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[B, d] -> [B, d]``, B rows of this process."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        rows = SumOverProcesses.apply(input.new_tensor([float(len(input))]))
        mean = SumOverProcesses.apply(input.sum(dim=0)) / rows
        centred = input - mean
        variance = SumOverProcesses.apply(centred.square().sum(dim=0)) / rows
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (rows / (rows - 1)), self.momentum)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over processes; its gradient is the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return SumOverProcesses.forward(ctx, gradients[0])


def perceptron(inputs: int, widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Hidden layers: linear, batch normalisation, ReLU, dropout, feedback point. ``[B, inputs] -> [B, widths[-1]]``.

    torchfm's linear layers have a bias, which the normalisation takes off again: its gradient is nothing but rounding,
    and Adam makes full steps of that.
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


class CrossNetwork(nn.Module):
    """Layers ``x <- x0 (w x) + b + x`` (Wang et al. 2017), with a feedback point between any two.

    Every x is ``a x0 + c`` with a number a for each row and a vector c for all, and ``w x`` is ``a (w x0) + w c``: one
    product of x0 with all w does for all layers, and no x but the last is computed unless a point needs it.
    """

    def __init__(self, inputs: int, layers: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(inputs, 1, bias=False) for _ in range(layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(inputs)) for _ in range(layers))
        self.points = nn.ModuleList(DFALayer() for _ in range(layers - 1))

    def forward(self, x0: Tensor) -> Tensor:
        """``[B, n] -> [B, n]``."""
        tape: Any = self.points[0].tape if len(self.points) > 0 else None
        method: Method = Method.BP if tape is None else tape.active_method
        looked_at = tape is not None and tape.observed is not None
        if method.layerwise or (looked_at and not method.cuts):
            return self.one_by_one(x0)
        return self.at_once(x0, method.cuts)

    def one_by_one(self, x0: Tensor) -> Tensor:
        """Layer by layer, where the gradient of every x is asked for or the weights are not those of the layers."""
        x = x0
        for weight, bias, point in zip(self.weights, self.biases, [*self.points, nn.Identity()], strict=True):
            x = point(torch.addcmul(x + bias, x0, weight(x)))
        return x

    def at_once(self, x0: Tensor, cut: bool) -> Tensor:
        """The same from one product; with `cut`, every x passes its point and is data for the layers above."""
        weights = torch.cat([weight.weight for weight in self.weights])  # type: ignore[misc]
        a, c = torch.ones_like(x0[:, :1]), torch.zeros_like(x0[0])
        scales: list[Tensor] = []
        shifts: list[Tensor] = []
        for product, weight, bias in zip((x0 @ weights.t()).split(1, dim=1), weights, self.biases, strict=True):
            a, c = a + a * product + weight @ c, c + bias
            scales.append(a)
            shifts.append(c)
            if cut:
                a, c = a.detach(), c.detach()
        if not cut:
            return Stretched.apply(x0, scales[-1], shifts[-1][None])[0]
        states = Stretched.apply(x0, torch.cat(scales, dim=1), torch.stack(shifts))
        for point, x in zip(self.points, states, strict=False):
            point(x)
        return states[-1]


class Stretched(torch.autograd.Function):
    """K times ``a x0 + c``, ``[B, n], [B, K], [K, n] -> K of [B, n]``, with few products in the backward pass.

    Under DFA all layers receive one gradient, since all have one width; it is summed once.
    """

    @staticmethod
    def forward(ctx: Any, x0: Tensor, a: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x0, a)
        ctx.set_materialize_grads(False)
        return tuple(torch.addcmul(shift, scale, x0) for scale, shift in zip(a.split(1, dim=1), c, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, Tensor, Tensor]:
        x0, a = ctx.saved_tensors
        of_x0 = torch.zeros_like(x0) if ctx.needs_input_grad[0] else None
        nothing = x0.new_zeros(len(x0)), x0.new_zeros(x0.shape[1])
        sums, before = [], None
        for place, gradient in enumerate(gradients):
            if gradient is None:
                sums.append(nothing)
            elif before is not None and is_same(gradient, before):
                sums.append(sums[-1])
            else:
                sums.append(((gradient * x0).sum(dim=1), gradient.sum(dim=0)))
            before = gradient
            if of_x0 is not None and gradient is not None:
                of_x0.addcmul_(gradient, a[:, place, None])
        of_a, of_c = zip(*sums, strict=True)
        return of_x0, torch.stack(of_a, dim=1), torch.stack(of_c)


def is_same(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors are views of the same numbers; a compiler, which shares sums by itself, is told no."""
    if torch.compiler.is_compiling() or tensor.shape != other.shape:
        return False
    return tensor.data_ptr() == other.data_ptr() and tensor.stride() == other.stride()


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

    ``relu(expm1(W log1p(|x| + 1e-7)))``, ``[B, F, d] -> [B, d m]`` for m neurons; neuron j of coordinate i is column
    ``i m + j``, which is how the product leaves it (torchfm has column ``j d + i``).
    """

    def __init__(self, fields: int, neurons: int) -> None:
        super().__init__()
        self.linear = nn.Linear(fields, neurons, bias=False)
        nn.init.uniform_(self.linear.weight, -(fields**-0.5), fields**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        logarithms = torch.log1p(x.abs() + 1e-7).transpose(1, 2).flatten(0, 1)  # [B d, F]
        exponents = self.linear(logarithms)  # [B d, m]
        if torch.compiler.is_compiling():  # which decides by itself what is computed in place
            return torch.relu(torch.expm1(exponents)).view(len(x), -1)
        return PositiveExpm1.apply(exponents).view(len(x), -1)


class PositiveExpm1(torch.autograd.Function):
    """``relu(expm1(y))`` in the memory of y: with [B, 15000] of them, allocating takes longer than computing."""

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
