"""The cross network (Wang et al. 2017), with one matrix product for all of its layers.

Letters: B rows of a batch, n width of the embeddings of all fields together, K layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinydfa import DFALayer


class CrossNetwork(nn.Module):
    """Layers ``x <- x0 (w x) + b + x`` (Wang et al. 2017), with a feedback point between consecutive layers.

    Every x is ``a x0 + c``, with a scalar a per row and a vector c shared by all rows, and ``w x = a (w x0) + w c``. So
    one product of x0 with all w serves all layers, and no x but the last is computed unless a point needs it.
    """

    def __init__(self, inputs: int, layers: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(inputs, 1, bias=False) for _ in range(layers))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(inputs)) for _ in range(layers))
        self.points = nn.ModuleList(DFALayer() for _ in range(layers - 1))

    def forward(self, x0: Tensor) -> Tensor:
        """``[B, n] -> [B, n]``."""
        point: Any = self.points[0] if len(self.points) > 0 else DFALayer()
        if point.layerwise or (point.watched and not point.cuts):
            return self.one_by_one(x0)
        return self.at_once(x0, cut=point.cuts and torch.is_grad_enabled())

    def one_by_one(self, x0: Tensor) -> Tensor:
        """Layer by layer: needed if the gradient of every x is observed, or if layers have feedback weights."""
        x = x0
        for weight, bias, point in zip(self.weights, self.biases, [*self.points, nn.Identity()], strict=True):
            x = point(torch.addcmul(x + bias, x0, weight(x)))
        return x

    def at_once(self, x0: Tensor, cut: bool) -> Tensor:
        """The same from one product; with `cut`, every x passes its point and is detached for the layers above."""
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
    """``a x0 + c`` for K layers, ``[B, n], [B, K], [K, n] -> K of [B, n]``, with few products in the backward pass.

    Under DFA all layers receive the same gradient, because all have the same width. It is reduced once.
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
    """Whether two tensors are views of the same memory; False while compiling, because the compiler shares the sums."""
    if torch.compiler.is_compiling() or tensor.shape != other.shape:
        return False
    return tensor.data_ptr() == other.data_ptr() and tensor.stride() == other.stride()
