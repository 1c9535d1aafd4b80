"""Running a model without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def state_kept(model: nn.Module) -> Iterator[None]:
    """Put back the generators and the model's buffers (batch norm's statistics) at the end of the block."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices: list[Any] = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, buffer in model.named_buffers():
                    if name in buffers:
                        buffer.copy_(buffers[name])


@contextmanager
def set_aside(model: nn.Module, keep_modes: bool) -> Iterator[None]:
    """Inside this block the model works on copies of its buffers; what a graph has saved of them stays as it is.

    Args:
        model: The model.
        keep_modes: False: modules that are not batch norm are in evaluation mode meanwhile.
    """
    modules = list(model.modules())
    before = [(module, module.training, dict(module._buffers)) for module in modules]
    try:
        for module in modules:
            module.training = module.training and (keep_modes or isinstance(module, _NormBase))
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.clone()
        yield
    finally:
        for module, training, buffers in before:
            module.training = training
            module._buffers.update(buffers)
