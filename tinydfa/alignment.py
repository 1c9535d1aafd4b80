"""Alignment: how close a method's gradients are to backpropagation's, on the model as it is.

For every feedback point, sample by sample (a token or a node, where the output has a row for each), the cosine between
the two gradients at the point and the ratio of their norms; for every parameter the same of its one gradient. Both
gradients are taken on the same model at the same weights with the same dropout masks; gradients, buffers and generators
are left as they were, and no copy is made.

A cosine above 0 means that a step along the method's gradient lowers the loss (Lillicrap 2016: an angle below 90
degrees). Source of the measure: `alignment.py` of the code release of arXiv 2006.12878.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinydfa.attachment import Attachment, attachment_of
from tinydfa.errors import DFAError
from tinydfa.head import Head
from tinydfa.passes import Link
from tinydfa.points import DFALayer
from tinydfa.release2020.alignment import AlignmentMeasurement
from tinydfa.shapes import batch_first, count, leading
from tinydfa.undisturbed import state_kept

__all__ = ["Alignment", "AlignmentMeasurement", "measure_alignment"]


class Alignment(NamedTuple):
    """How a method's gradient compares with backpropagation's, over the samples of one batch.

    Attributes:
        mean: Mean cosine, -1 to 1.
        std: Its standard deviation over samples (of a parameter, which has one gradient a batch: 0).
        norm_ratio: Norm of the method's gradient over that of backpropagation's (1: the same size).
        samples: Samples with a gradient that the mean is taken over.
    """

    mean: float
    std: float
    norm_ratio: float
    samples: int


def measure_alignment(model: nn.Module, loss_fn: Callable[[nn.Module], Tensor]) -> dict[str, Alignment]:
    """Compare the gradients of the method in force with backpropagation's.

    Args:
        model: A model with a `DFA` head of its own, or one that `attach` was called on.
        loss_fn: Calls the model once and returns the loss, a scalar. It is called twice. Under `drtp` it also sets
            ``attachment.target``.

    Returns:
        By name of the point or parameter. A sample whose two gradients are both zero (a node outside the loss) does
        not count; a parameter without a gradient under the method (`shallow`) has mean 0 and norm ratio 0.

    Raises:
        DFAError: No method is at work on `model`.

    Example:
        >>> from tinydfa import attach
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> attachment = attach(net, "bp", points=["1"])
        >>> measure_alignment(net, lambda net: net(torch.ones(3, 4)).square().sum())["1"].norm_ratio
        1.0
    """
    attachment, link = method_of(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with state_kept(model), link.unlearning():
        method = gradients(model, loss_fn, link, parameters)
    with state_kept(model), attachment.backprop() if attachment is not None else link.backprop():
        backprop = gradients(model, loss_fn, link, parameters)
    result = {}
    for name, (truth, rows) in backprop.items():
        ours = method[name][0] if name in method else None
        result[name] = compare(truth if ours is None else ours, truth, rows, missing=ours is None)
    return result


def method_of(model: nn.Module) -> tuple[Attachment | None, Link]:
    """The attachment (if any) and the link at work on a model."""
    inner = getattr(model, "module", model) if hasattr(model, "require_backward_grad_sync") else model
    attachment = attachment_of(inner)
    if attachment is not None:
        return attachment, attachment.link
    heads = [module for module in inner.modules() if isinstance(module, Head)]
    if not heads:
        raise DFAError(
            f"no method is at work on {type(inner).__name__}: it was not attached and has no DFA head. Call "
            'tinydfa.attach(model, "dfa", ...) first.'
        )
    return None, heads[0].link


def gradients(
    model: nn.Module, loss_fn: Callable[[nn.Module], Tensor], link: Link, parameters: dict[str, nn.Parameter]
) -> dict[str, tuple[Tensor, int]]:
    """Gradients by name of point and parameter, with the number of rows each is compared over."""
    with link.observed() as seen, torch.enable_grad():
        loss = loss_fn(model)
    if loss.dim() != 0:
        raise DFAError(f"loss_fn returned a tensor of shape {tuple(loss.shape)}; alignment needs one number.")
    points = {name: (point, value) for name, (point, value) in named(seen.seen).items() if value.requires_grad}
    places = {**{name: value for name, (_, value) in points.items()}, **parameters}
    found = torch.autograd.grad(loss, list(places.values()), allow_unused=True)
    result = {name: (gradient, 1) for name, gradient in zip(places, found, strict=True) if gradient is not None}
    for name, (point, value) in points.items():
        if name in result:
            dims = leading(seen.sample_dims if point.batch_dims is None else point.batch_dims, value.dim())
            rows, _ = count(value.shape, dims)
            result[name] = batch_first(result[name][0], dims), rows
    return result


def named(seen: list[tuple[DFALayer, Tensor]]) -> dict[str, tuple[DFALayer, Tensor]]:
    """Points by name; one that ran several times in a pass gets a number after its first."""
    result: dict[str, tuple[DFALayer, Tensor]] = {}
    for point, value in seen:
        times = sum(1 for name in result if name.split("#")[0] == point.label)
        result[point.label if times == 0 else f"{point.label}#{times}"] = point, value
    return result


def compare(ours: Tensor, truth: Tensor, rows: int, missing: bool) -> Alignment:
    """Cosine and norm ratio of two gradients over their rows."""
    ours, truth = ours.detach().reshape(rows, -1).double(), truth.detach().reshape(rows, -1).double()
    if missing:
        ours = torch.zeros_like(truth)
    ours_size, truth_size = ours.norm(dim=1), truth.norm(dim=1)
    counted = (ours_size > 0) | (truth_size > 0)
    samples = int(counted.sum())
    if samples == 0:
        return Alignment(0.0, 0.0, 0.0, 0)
    product = (ours * truth).sum(dim=1) / (ours_size * truth_size).clamp_min(torch.finfo(torch.float64).tiny)
    cosine = product[counted]
    ratio = ours_size.norm() / truth_size.norm()
    return Alignment(float(cosine.mean()), float(cosine.std(correction=0)), float(ratio), samples)
