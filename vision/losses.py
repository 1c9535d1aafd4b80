"""Losses by name. Each is a mean over samples of one number a sample, so that `reduction` alone decides its scale.

Letters: B samples, K outputs; targets are class ids ``[B]`` or, for regression, rows ``[B, K]``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from harness.precision import at_least_float32

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Softmax and cross-entropy, nats per sample. Its error is ``(softmax - one-hot) / B``."""
    return F.cross_entropy(at_least_float32(output), target)


def binary_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Sigmoid and cross-entropy of every output, nats per output. Its error is ``(sigmoid - one-hot) / (B K)``."""
    output = at_least_float32(output)
    return F.binary_cross_entropy_with_logits(output, rows(target, output))


def summed_binary_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """The same, summed over a sample's outputs, nats per sample. Its error is ``(sigmoid - one-hot) / B``."""
    return binary_cross_entropy(output, target) * output.shape[1]


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference per output. Its error is ``2 (output - target) / (B K)``."""
    output = at_least_float32(output)
    return F.mse_loss(output, rows(target, output))


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "bce": binary_cross_entropy,
    "bce-sum": summed_binary_cross_entropy,
    "mse": squared_error,
}


def rows(target: Tensor, output: Tensor) -> Tensor:
    """Targets as rows ``[B, K]`` of the output's type: one-hot where they are class ids.

    Example:
        >>> import torch
        >>> rows(torch.tensor([1]), torch.zeros(1, 3))
        tensor([[0., 1., 0.]])
    """
    return (target if target.is_floating_point() else F.one_hot(target, output.shape[1])).to(output.dtype)


def wrong(output: Tensor, target: Tensor) -> Tensor:
    """How many samples have their largest output at another class than `target`, a 0-d tensor."""
    return (output.argmax(dim=1) != target).sum()
