"""Gradients of a loss by name, and the graph by which they reach the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tinydfa.surroundings.sharded import is_distributed

CASTS = ("ToCopyBackward0", "TBackward0")  # what a weight passes alone, before it meets an activation


def gradients_of(loss: Tensor, places: Mapping[str, Tensor], stored: bool = False) -> dict[str, Tensor | None]:
    """Gradients of `loss` at tensors by name; None where it does not depend on one.

    Sparse gradients become dense, and those that are spread over processes whole.

    Args:
        loss: A scalar.
        places: Tensors by name.
        stored: They are parameters of sharded modules, whose gradients are only there once they are stored.
    """
    if not loss.requires_grad or not places:  # nothing that trains is above the points, or nothing trains at all
        return dict.fromkeys(places)
    tensors = list(places.values())
    found = by_backward(loss, tensors) if stored else torch.autograd.grad(loss, tensors, allow_unused=True)
    return {name: dense(gradient) for name, gradient in zip(places, found, strict=True)}


def by_backward(loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients as `loss.backward()` stores them; those that were stored before are put back."""
    for tensor in tensors:
        if not tensor.is_leaf:
            tensor.retain_grad()
    before = [tensor.grad for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.grad = None
        loss.backward()
        return [tensor.grad for tensor in tensors]
    finally:
        for tensor, gradient in zip(tensors, before, strict=True):
            tensor.grad = gradient


def dense(gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return None
    gradient = gradient if gradient.layout is torch.strided else gradient.to_dense()
    return gradient.full_tensor() if is_distributed(gradient) else gradient  # type: ignore[attr-defined]


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
