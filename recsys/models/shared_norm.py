"""Batch normalisation over the whole batch of all processes.

Letters: B rows of this process's share of a batch, d width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.precision import at_least_float32


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the rows of all processes, equal to that of one process with the whole batch.

    PyTorch has this only for GPUs (`nn.SyncBatchNorm`). Under autocast to bfloat16, sums are float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[B, d] -> [B, d]``, B rows of this process."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        x = at_least_float32(input)
        rows = SumOverProcesses.apply(x.new_tensor([float(len(x))]))
        mean = SumOverProcesses.apply(x.sum(dim=0)) / rows
        centred = x - mean
        variance = SumOverProcesses.apply(centred.square().sum(dim=0)) / rows
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (rows / (rows - 1)), self.momentum)
        return (centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(input.dtype)


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
