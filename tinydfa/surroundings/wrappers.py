"""The model inside of what wraps it and calls it: `torch.compile`, `DistributedDataParallel`, Lightning Fabric."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

FABRIC = "_FabricModule"  # Lightning's class, which is not imported for its name


def unwrapped(model: nn.Module) -> nn.Module:
    """The innermost model of wrappers that call it and compute nothing of their own.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> unwrapped(net) is net
        True
    """
    inner: Any = model
    while True:
        within = inside(inner)
        if within is None:
            return inner
        inner = within


def inside(wrapper: Any) -> nn.Module | None:
    """What a wrapper calls; None where it is none."""
    if isinstance(wrapper, DistributedDataParallel):
        return wrapper.module
    found: nn.Module | None = dict(wrapper.named_children()).get("_orig_mod")  # accelerate has an attribute of the name
    if found is None and type(wrapper).__name__ == FABRIC:
        found = wrapper._original_module
    return found
