"""Alignment: how close a method's gradients are to backpropagation's, on the model as it is.

For every feedback point, sample by sample (a token or a node, where the output has a row for each), the cosine between
the two gradients at the point and the ratio of their norms; for every parameter the same of its one gradient. Both
gradients are taken on the same model at the same weights with the same dropout masks; gradients, buffers and generators
are left as they were, and no copy is made.

A cosine above 0 means that a step along the method's gradient lowers the loss (Lillicrap 2016: an angle below 90
degrees). Source of the measure: `alignment.py` of the code release of arXiv 2006.12878.

Two numbers tell whether a cosine means anything. `reference`: backpropagation's gradient may be no more than what
rounding left of a gradient that cancels. `chance`: a mean cosine over few or similar samples is not 0 even for feedback
that the network never saw. Turn the method's unit gradients x_i, ``[d]``, by a random rotation R against
backpropagation's y_i: the mean of ``y_i . R x_i`` over n samples has mean 0 and the standard deviation

    |M| / sqrt(d)        with M = sum_i y_i x_i.T / n, ``[d, d]``, and |M| its Frobenius norm

which is 1 / sqrt(n d) for samples that have nothing in common, and 1 / sqrt(d) for samples that are all alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinydfa.attaching.attachment import Attachment, attachment_of
from tinydfa.errors import DFAError
from tinydfa.examining.gradients import gradients_of
from tinydfa.head import Head
from tinydfa.passes.forward_pass import Link
from tinydfa.passes.shapes import batch_first, count, leading
from tinydfa.passes.undisturbed import state_kept
from tinydfa.points import DFALayer
from tinydfa.surroundings.sharded import is_sharded
from tinydfa.surroundings.wrappers import unwrapped


class Alignment(NamedTuple):
    """How a method's gradient compares with backpropagation's, over the samples of one batch.

    Attributes:
        mean: Mean cosine, -1 to 1.
        std: Its standard deviation over samples (of a parameter, which has one gradient a batch: 0).
        norm_ratio: Norm of the method's gradient over that of backpropagation's (1: the same size).
        samples: Samples with a gradient that the mean is taken over.
        reference: Norm of backpropagation's gradient, over the whole batch, in units of its rounding: machine epsilon
            times the largest such norm among the output and the points (of a parameter: among the parameters). At 1
            or below there is nothing left to be aligned with.
        chance: Standard deviation of `mean` over fresh random feedback, whose expected cosine is 0. A mean within twice
            this of 0 says nothing. Not known of a parameter: nan.
    """

    mean: float
    std: float
    norm_ratio: float
    samples: int
    reference: float = math.nan
    chance: float = math.nan

    @property
    def significant(self) -> bool:
        """Whether the cosine is one of gradients, not of rounding errors, and beyond chance where that is known."""
        return self.samples > 0 and self.reference > 1.0 and not abs(self.mean) <= 2.0 * self.chance


def measure_alignment(model: nn.Module, loss_fn: Callable[[nn.Module], Tensor]) -> dict[str, Alignment]:
    """Compare the gradients of the method in force with backpropagation's.

    Args:
        model: A model with a `DFA` head of its own, or one that `attach` was called on.
        loss_fn: Calls the model once and returns the loss, a scalar. It is called twice. Under a rule that reads
            targets it also sets ``attachment.target``.

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
    model = unwrapped(model)
    attachment, link = method_of(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with state_kept(model), link.unlearning():
        method, _ = gradients(model, loss_fn, link, parameters)
    with state_kept(model), attachment.backprop() if attachment is not None else link.backprop():
        backprop, error = gradients(model, loss_fn, link, parameters)
    sizes = {name: float(truth.double().norm()) for name, (truth, _) in backprop.items()}
    of_points = max([error, *(size for name, size in sizes.items() if name not in parameters)])
    of_parameters = max((size for name, size in sizes.items() if name in parameters), default=0.0)
    result = {}
    for name, (truth, rows) in backprop.items():
        ours = method[name][0] if name in method else None
        found = compare(truth if ours is None else ours, truth, rows, missing=ours is None)
        unit = (of_parameters if name in parameters else of_points) * torch.finfo(truth.dtype).eps
        chance = math.nan if name in parameters else found.chance
        result[name] = found._replace(reference=sizes[name] / unit if unit > 0 else 0.0, chance=chance)
    return result


def method_of(model: nn.Module) -> tuple[Attachment | None, Link]:
    """The attachment (if any) and the link at work on a model."""
    inner = unwrapped(model)
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
) -> tuple[dict[str, tuple[Tensor, int]], float]:
    """Gradients by name of point and parameter, with the number of rows each is compared over; the error's norm."""
    with link.observed() as seen, torch.enable_grad():
        loss = loss_fn(model)
    if loss.dim() != 0:
        raise DFAError(f"loss_fn returned a tensor of shape {tuple(loss.shape)}; alignment needs one number.")
    points = {name: (point, value) for name, (point, value) in named(seen.seen).items() if value.requires_grad}
    outputs = {f"output {number}": value for number, value in enumerate(seen.at_head) if value.requires_grad}
    places = {**outputs, **{name: value for name, (_, value) in points.items()}, **parameters}
    result = {
        name: (gradient, 1)
        for name, gradient in gradients_of(loss, places, is_sharded(model)).items()
        if gradient is not None
    }
    errors = [result.pop(name)[0] for name in outputs if name in result]
    error = math.hypot(*(float(gradient.double().norm()) for gradient in errors))
    for name, (point, value) in points.items():
        if name in result:
            dims = leading(seen.sample_dims if point.batch_dims is None else point.batch_dims, value.dim())
            rows, _ = count(value.shape, dims)
            result[name] = batch_first(result[name][0], dims), rows
    return result, error


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
    tiny = torch.finfo(torch.float64).tiny
    x, y = (rows / size.clamp_min(tiny).unsqueeze(1) for rows, size in ((ours, ours_size), (truth, truth_size)))
    cosine = (x * y).sum(dim=1)[counted]
    ratio = ours_size.norm() / truth_size.norm()
    return Alignment(
        float(cosine.mean()),
        float(cosine.std(correction=0)),
        float(ratio),
        samples,
        chance=chance(x[counted], y[counted]),
    )


def chance(x: Tensor, y: Tensor) -> float:
    """Standard deviation of the mean cosine of unit rows, ``[n, d]`` both, when `x` is turned at random."""
    samples, width = x.shape
    few = samples < width  # then the same number from the samples' own products
    together = ((x @ x.T) * (y @ y.T)).sum().clamp_min(0.0) if few else (y.T @ x).square().sum()
    return float(together.sqrt()) / (samples * math.sqrt(width))
