"""Running a model without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


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
