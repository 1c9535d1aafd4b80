"""Pre-alignment initialisation (PAI): weights that send back what the feedback sends (arXiv 1906.04554).

Backpropagation hands a linear layer ``y = x W^T`` the gradient g at its output and passes on ``g W``; a direct method
sends the layer below a signal r of its own. They agree if ``g W = r``, so from the top layer down, on one batch,

    W = pinv(g) r / |pinv(g) r|      (|.|: the Frobenius norm)

the shortest of the least-squares solutions, at norm 1. Gradients of lower layers are taken after the layers above them
were replaced. The lowest layer has nothing below it and keeps its weights, and so do convolutions and all biases.

Letters: B samples, n inputs and m outputs of a layer; W is ``[m, n]``, g is ``[B, m]``, r is ``[B, n]``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinydfa import Attachment, DFALayer
from tinydfa.rules import registered


class Passage(NamedTuple):
    """A layer or a feedback point in a forward pass."""

    module: nn.Module
    given: Tensor
    output: Tensor


def prealign(
    model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor, loss_fn: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Set the weights of all linear layers but the lowest so that backpropagation agrees with the attached method.

    Args:
        model: A chain of layers; changed in place, run in evaluation mode. Its gradients are left as they were.
        attachment: What is attached to it. r is the method's signal at the feedback point below a layer; where there is
            none, the gradient at the layer's input that comes down from the point above.
        x: One batch, ``[B, ...]``.
        y: Its targets.
        loss_fn: From output and targets to a number.

    Raises:
        ValueError: the method has no signal of its own, or a signal is not as wide as the layer above it.
    """
    if not attachment.rule.broadcasts:
        raise ValueError(
            f"{attachment.method} sends no signal of its own that weights could be aligned with. Use one of "
            f"{', '.join(name for name, rule in registered().items() if rule.broadcasts)}."
        )

    def forward() -> tuple[Tensor, list[Passage]]:
        if attachment.rule.needs_target:
            attachment.target = y
        output, passages = observed(model, x)
        return loss_fn(output, y), passages

    training = model.training
    model.eval()  # dropout would draw other masks in every pass
    _, passages = forward()
    weighted = [n for n, passage in enumerate(passages) if not isinstance(passage.module, DFALayer)]
    for below, number in reversed(list(pairwise(weighted))):
        layer = passages[number].module
        if not isinstance(layer, nn.Linear):
            continue
        loss, now = forward()
        point = max((n for n in range(below + 1, number) if isinstance(now[n].module, DFALayer)), default=number)
        (r,) = torch.autograd.grad(loss, now[point].given)
        with attachment.backprop():
            loss, now = forward()
            (g,) = torch.autograd.grad(loss, now[number].output)
        align(layer, g, r.flatten(1))
    model.train(training)


def align(layer: nn.Linear, g: Tensor, r: Tensor) -> None:
    """Set the weight W of `layer` to the shortest least-squares solution of ``g W = r``, at norm 1.

    Singular values of g below the rounding of float32 count as zero: an error of softmax and cross-entropy sums to zero
    over the classes, so that one always is.
    """
    if r.shape[1] != layer.in_features:
        raise ValueError(
            f"the signal below a layer with {layer.in_features} inputs is {r.shape[1]} wide. Put the feedback point "
            "where the layer's input is, behind any pool."
        )
    rounding = max(g.shape) * torch.finfo(torch.float32).eps
    weight = torch.linalg.pinv(g.double(), rtol=rounding) @ r.double()
    with torch.no_grad():
        layer.weight.copy_(weight / weight.norm())


def observed(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Passage]]:
    """The output for `x`, and the passages of layers with weights and of feedback points, in order."""
    seen: list[Passage] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(Passage(module, inputs[0], output))

    kinds = (nn.Linear, nn.Conv2d, DFALayer)
    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, kinds)]
    try:
        return model(x), seen
    finally:
        for hook in hooks:
            hook.remove()
