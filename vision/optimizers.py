"""Optimisers by the names that the papers use, fused into one kernel where torch has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

Make = Callable[[Iterable[nn.Parameter], float, float], torch.optim.Optimizer]


def _sgd(**options: Any) -> Make:
    return lambda parameters, lr, decay: torch.optim.SGD(parameters, lr, weight_decay=decay, fused=True, **options)


OPTIMIZERS: dict[str, Make] = {
    "sgd": _sgd(),
    "momentum": _sgd(momentum=0.9),
    "nag": _sgd(momentum=0.9, nesterov=True),
    "adam": lambda parameters, lr, decay: torch.optim.Adam(parameters, lr, weight_decay=decay, fused=True),
    "rmsprop": lambda parameters, lr, decay: torch.optim.RMSprop(parameters, lr, weight_decay=decay),
}


def make_optimizer(name: str, model: nn.Module, lr: float, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """The optimiser called `name` for the parameters of `model` that are trained; momentum is always 0.9."""
    return OPTIMIZERS[name]((p for p in model.parameters() if p.requires_grad), lr, weight_decay)
