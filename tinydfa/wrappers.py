"""The model inside of what wraps it and calls it: `torch.compile`, `DistributedDataParallel`, Lightning Fabric."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

INSIDE = {"OptimizedModule": "_orig_mod", "_FabricModule": "_original_module"}  # attributes, by the wrapper's class


def unwrapped(model: nn.Module) -> nn.Module:
    """The innermost model of wrappers that call it and compute nothing of their own.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> unwrapped(net) is net
        True
    """
    inner: Any = model
    while True:
        name = "module" if isinstance(inner, DistributedDataParallel) else INSIDE.get(type(inner).__name__)
        if name is None:
            return inner
        inner = getattr(inner, name)
