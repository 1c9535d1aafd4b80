"""The autograd node between the output and the points of one forward pass, and the rule it applies.

Backward, with e the gradient at the output flattened to ``[B, c]`` and s what the method leaves of it:

    P = s @ F                       one product for all points
    g = scale * P[:, start:start+d] for a point of width d, repeated k times over sqrt(k) where it has k rows a sample

The factors and e's own scale are applied to the small side, s, so that P is written once and the points read slices
of it. Source: arXiv 2006.12878, eq. 4, and its code release for the scale and for repeated rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from tinydfa.checks import checked, missing_target, refuse_large_ids
from tinydfa.errors import ShapeError
from tinydfa.layout import Layout
from tinydfa.methods import Method
from tinydfa.points import Tape

if TYPE_CHECKING:
    from tinydfa.dfa import DFA


class Rule(NamedTuple):
    """What the node does in its backward pass: plain numbers, so that a compiler can hold them."""

    method: Method
    outputs: int
    starts: tuple[int, ...]  # the tuples run over the points
    widths: tuple[int, ...]
    factors: tuple[float, ...]  # beyond `common`
    common: float
    which: tuple[int, ...]  # index tensor that maps a point's rows to samples, -1: none
    error_sum: bool
    threshold: float | None
    loss_scale: float | None
    check_finite: bool
    name: str
    product: torch.dtype | None  # type of the projection; None: that of the points
    like: tuple[Any, ...] | None  # shape, type, device and leafness of each point's gradient; None: to be read off

    @staticmethod
    def of(
        head: DFA,
        method: Method,
        layout: Layout,
        which: tuple[int, ...],
        product: torch.dtype | None,
        like: tuple[Any, ...] | None,
    ) -> Rule:
        feedback = head.feedback
        factors = [1.0 for _ in layout.widths]
        if head.normalization:
            factors = [feedback.scale(layout.outputs, layout.largest, width) for width in layout.widths]
        common = factors[0] if len(set(factors)) == 1 else 1.0
        return Rule(
            method=method,
            outputs=layout.outputs,
            starts=tuple(layout.starts),
            widths=tuple(layout.widths),
            factors=tuple([factor / common for factor in factors]),
            common=common,
            which=which,
            error_sum=feedback.error_sum,
            threshold=feedback.threshold,
            loss_scale=head.tape.loss_scale,
            check_finite=feedback.check_finite,
            name=", ".join(layout.names),
            product=product,
            like=like,
        )


class Broadcast(torch.autograd.Function):
    """Output: the model's output, unchanged. Gradients: e for the output, a projection of it for every point."""

    @staticmethod
    def forward(  # the different index tensors, then the points
        ctx: Any,
        rule: Rule,
        tape: Tape | None,
        matrix: Tensor,
        target: Tensor | None,
        output: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.rule, ctx.tape = rule, tape
        indices = max(rule.which, default=-1) + 1
        ctx.like = likeness(tensors[indices:]) if rule.like is None else rule.like
        if torch.compiler.is_compiling():
            ctx.save_for_backward(matrix, target, *tensors[:indices])
        else:  # a recomputed pass has neither target nor points, and must save as many tensors as the first
            ctx.save_for_backward(matrix)
            ctx.kept = (target, *tensors[:indices])
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (error,) = gradients
        matrix, *kept = ctx.saved_tensors
        target, *index = kept or ctx.kept
        rule: Rule = ctx.rule
        rows = error.reshape(-1, rule.outputs)
        if rule.check_finite:
            rows = checked(rows, rule.name, rule.method, rule.loss_scale)
        if rule.method is Method.DRTP:
            if target is None:
                target = ctx.tape.take_target()
            rows = target_rows(target, rows, look=rule.check_finite)
        places = [None if which < 0 else index[which] for which in rule.which]
        signals = project(rule, signal(rule, rows), matrix, ctx.like, places)
        return (None, None, None, None, error, *[None for _ in index], *signals)


def likeness(points: Sequence[Tensor]) -> tuple[Any, ...]:
    """What the gradients of `points` have to be like."""
    return tuple([(value.shape, value.dtype, value.device, value.is_leaf) for value in points])


def signal(rule: Rule, error: Tensor) -> Tensor:
    """What is projected, ``[B, c]``: the error, its signs, or the target rows that stand in its place."""
    if rule.method is Method.SDFA:
        error = error.sign()
    elif rule.method is Method.TDFA:
        size = error.abs()
        threshold = size.mean() if rule.threshold is None else rule.threshold * (rule.loss_scale or 1.0)
        error = torch.where(size > threshold, error.sign(), 0.0)
    if rule.loss_scale is not None and rule.method.ignores_loss_scale:
        error = error * rule.loss_scale
    return error * error.shape[0] if rule.error_sum else error


def project(rule: Rule, rows: Tensor, matrix: Tensor, like: Sequence[Any], index: list[Tensor | None]) -> list[Tensor]:
    """One gradient per point from one product ``rows @ F``."""
    if not like:
        return []
    dtype = rule.product or reduce(torch.promote_types, {place[1] for place in like})
    small = as_like(rows * rule.common, dtype, matrix.device)
    product = small @ as_like(matrix, dtype, matrix.device)
    signals = []
    parts: dict[tuple[Any, ...], Tensor] = {}  # points of the same width and type share one
    for start, width, factor, place, rows_of in zip(rule.starts, rule.widths, rule.factors, like, index, strict=True):
        shape, own, device, leaf = place
        key = (start, width, factor, own, device)
        if key not in parts:
            part = product if width == product.shape[1] else product[:, start : start + width]
            parts[key] = as_like(part if factor == 1.0 else part * factor, own, device)
        part = parts[key]
        if part.shape != shape:
            part = spread(part, shape.numel() // max(width, 1), rows_of, look=rule.check_finite).reshape(shape)
        elif rows_of is not None:
            part = spread(part, shape[0], rows_of, look=rule.check_finite)
        signals.append(part.clone() if leaf else part)  # a leaf keeps its gradient: it must not share memory
    return signals


def autocast_type(device: torch.device) -> torch.dtype | None:
    """bfloat16 under its autocast, where the projection is a product like any other, even if a point is float32.

    Not float16, whose range may be too small for what comes of an error times a loss scale.
    """
    kind = device.type
    bf16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.bfloat16
    return torch.bfloat16 if bf16 else None


def as_like(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`tensor` itself where it has the type and place already; asking first is cheaper than `Tensor.to`."""
    return tensor if tensor.dtype is dtype and tensor.device == device else tensor.to(device=device, dtype=dtype)


def spread(part: Tensor, rows: int, index: Tensor | None, *, look: bool = True) -> Tensor:
    """Repeat every sample's signal over its k rows, divided by sqrt(k): ``[B, d]`` to ``[rows, d]``.

    `look`: refuse an index that is out of range.
    """
    samples = part.shape[0]
    if index is not None:
        if look and not torch.compiler.is_compiling() and bool(((index < 0) | (index >= samples)).any()):
            raise ShapeError(
                f"the index that says which sample each row of a point belongs to has entries from {int(index.min())} "
                f"to {int(index.max())}, but there are {samples} samples: 0 to {samples - 1}."
            )
        times = part.new_zeros(samples).index_add_(0, index, part.new_ones(rows))
        return (part * times.clamp_min(1).rsqrt()[:, None])[index]
    if rows == samples:
        return part
    times_each = rows // samples
    return (part * times_each**-0.5).repeat_interleave(times_each, dim=0)


def target_rows(target: Tensor | None, like: Tensor, *, look: bool = True) -> Tensor:
    """Targets as rows ``[B, c]``: class ids become one-hot rows, negative ids (no label) rows of zeros.

    `look`: refuse ids that are too large.
    """
    if target is None:
        raise missing_target()
    samples, outputs = like.shape
    if target.is_floating_point() or target.numel() != samples or outputs == 1:
        if target.numel() != like.numel():
            raise ShapeError(
                f"drtp was given a target of shape {tuple(target.shape)} for an output of {samples} samples and "
                f"{outputs} classes. Pass {samples} class ids, or rows of {outputs} numbers."
            )
        return target.reshape(samples, outputs).to(like)
    ids = target.reshape(-1, 1).to(like.device)
    if look and not torch.compiler.is_compiling():
        refuse_large_ids(ids, outputs)
    rows = torch.zeros_like(like).scatter_(1, ids.clamp(0, outputs - 1), 1.0)
    return rows * (ids >= 0)
