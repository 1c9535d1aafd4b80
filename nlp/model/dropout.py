"""Dropout at a quarter of the cost of torch's on a CPU, where drawing the random numbers dominates."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 1 << 16  # the rate is rounded to a multiple of 1 / STEPS


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """`x` with a share `rate` of its entries set to 0 in training, and the others scaled so that the mean is kept.

    On a GPU it is torch's own.
    """
    if not training or rate == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, rate)
    return x * kept(x.shape, rate).to(x.dtype)


def kept(shape: torch.Size, rate: float) -> Tensor:
    """What to multiply by, float32: 0 for a share `rate`, 1 / (1 - rate) for the others.

    Each 64 random bits of torch's global generator decide about four entries.
    """
    size = math.prod(shape)
    bits = torch.randint(-(2**63), 2**63 - 1, (-(-size // 4),))
    border = round(rate * STEPS)
    numbers = bits.view(torch.int16)[:size].view(shape).float()  # whole, from -STEPS / 2 on
    return numbers.ge_(border - STEPS // 2).mul_(STEPS / (STEPS - border))


def relu_dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """``dropout(relu(x))``; it saves one tensor for the backward pass instead of three."""
    if not training or rate == 0 or x.device.type != "cpu":
        return dropout(F.relu(x), rate, training)
    out: Tensor = _ReluDropout.apply(x, rate)
    return out


class _ReluDropout(torch.autograd.Function):
    """The output is positive exactly where the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.scale = STEPS / (STEPS - round(rate * STEPS))
        out = x.relu().mul_(kept(x.shape, rate).to(x.dtype))
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        passed: Tensor = torch.ops.aten.threshold_backward(gradient, out, 0)
        passed *= ctx.scale
        return passed, None


def add_dropped(x: Tensor, y: Tensor, rate: float, training: bool) -> Tensor:
    """``x + dropout(y)``."""
    if not training or rate == 0 or x.device.type != "cpu":
        return x + dropout(y, rate, training)
    return torch.addcmul(x, y, kept(y.shape, rate).to(y.dtype))
