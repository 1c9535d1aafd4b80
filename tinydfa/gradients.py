"""Gradients of a loss by name, and the graph by which they reach the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

CASTS = ("ToCopyBackward0", "TBackward0")  # what a weight passes alone, before it meets an activation


def gradients_of(loss: Tensor, places: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Gradients of `loss` at tensors by name; None where it does not depend on one. Sparse gradients become dense."""
    if not loss.requires_grad or not places:  # nothing that trains is above the points, or nothing trains at all
        return dict.fromkeys(places)
    found = torch.autograd.grad(loss, list(places.values()), allow_unused=True)
    return {name: dense(gradient) for name, gradient in zip(places, found, strict=True)}


def dense(gradient: Tensor | None) -> Tensor | None:
    return gradient if gradient is None or gradient.layout is torch.strided else gradient.to_dense()


def upstream(roots: Iterable[Any]) -> set[Any]:
    """The nodes of autograd's graph that a gradient reaches from `roots`, which are nodes too."""
    found: set[Any] = set()
    waiting = [node for node in roots if node is not None]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [below for below, _ in node.next_functions if below is not None]
    return found


def leaves(nodes: Iterable[Any]) -> set[int]:
    """The `id`s of the parameters at the end of `nodes`."""
    return {id(node.variable) for node in nodes if hasattr(node, "variable")}


def carries_activations(node: Any) -> bool:
    """Whether a node may stand for more than a weight on its own: one that two layers share has its own node twice."""
    return not hasattr(node, "variable") and node.name() not in CASTS
