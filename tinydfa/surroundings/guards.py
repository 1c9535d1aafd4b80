"""Inputs that a kernel of torch cannot take where the graph is cut."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def guard(model: nn.Module) -> list[RemovableHandle]:
    """Protect the group normalisations of `model`; returns what removes the protection.

    Above a point their input often asks for no gradient, and their backward kernel on a CPU does not survive that in
    every memory layout. They are given a contiguous input there, which has the same values.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    return [norm.register_forward_pre_hook(contiguous_input) for norm in norms]


def contiguous_input(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """A forward pre-hook: a contiguous input in place of one that asks for no gradient, in a pass that trains."""
    if not inputs or not isinstance(inputs[0], Tensor) or inputs[0].requires_grad or not torch.is_grad_enabled():
        return None
    return (inputs[0].contiguous(), *inputs[1:])
