"""The autograd node between the output and the points of one forward pass.

Its inputs are the output (or several) and what came into every point; forward, it returns the output unchanged.
Backward, it receives e once, encodes and projects it once, and returns one gradient for every point. Everything else is
ordinary autograd: `loss.backward()`, hooks of DDP and FSDP, accumulation, checkpointing, autocast, `torch.compile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tinydfa.feedback.learner import number_of, show
from tinydfa.feedback.local import local_signals
from tinydfa.passes.checks import checked, missing_target, refuse_strange_indices, refuse_strange_target
from tinydfa.passes.forward_pass import ForwardPass
from tinydfa.passes.shapes import check_target
from tinydfa.rules import Rule
from tinydfa.signals import Slot, project, signals


class Plan(NamedTuple):
    """What the node does in its backward pass."""

    rule: Rule
    widths: tuple[int, ...]  # of the error at each output
    columns: int  # D
    slots: tuple[Slot, ...]
    scale: float  # on every signal
    error_sum: bool
    loss_scale: float | None  # to be undone before the error is encoded, and done again
    must_know_scale: bool
    check_finite: bool
    names: str  # of the points
    dtype: torch.dtype  # of the product
    projector: Any  # None: the matrix
    carries_scale: bool  # twice the encoded error is projected to twice as much
    learner: int | None  # the handle of what learns, or of what a local rule has learned
    learns: bool  # the feedback may change
    indices: int  # how many tensors of them there are
    alike: bool  # the error is [B, c] as it comes, and every point receives the projection as it is


class Node(torch.autograd.Function):
    """Outputs: the model's outputs, unchanged. Gradients: e for the outputs, a projection of it for every point."""

    @staticmethod
    def forward(  # the outputs, then the index tensors, then what came into the points
        ctx: Any,
        plan: Plan,
        current: ForwardPass | None,
        matrix: Tensor | None,
        target: Tensor | None,
        *tensors: Tensor,
    ) -> Any:
        if plan.alike:
            ctx.plan, ctx.current, ctx.kept = plan, current, (matrix, target)
            return tensors[0]
        first = len(plan.widths)
        after = first + plan.indices
        ctx.plan, ctx.current, ctx.number = plan, current, number_of(plan.learner)
        ctx.slots = plan.slots
        if plan.slots and plan.slots[0].shape is None:
            ctx.slots = fitted(plan.slots, tensors[after:])
        kept = tensors[first:] if plan.learner is not None else tensors[first:after]
        if torch.compiler.is_compiling():
            ctx.save_for_backward(matrix, target, *kept)
            views = tuple([output.view_as(output) for output in tensors[:first]])
            return views[0] if first == 1 else views
        ctx.kept = matrix, target, *[tensor.detach() for tensor in kept]  # not saved: a recomputation saves nothing
        return tensors[0] if first == 1 else tensors[:first]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        if plan.alike:
            return (*NOTHING, *gradients, *[alike_signal(plan, ctx, gradients[0])] * len(plan.slots))
        matrix, target, *others = ctx.saved_tensors or ctx.kept
        encoded = encode(
            plan, rows_of(gradients, plan.widths), awaited(plan, ctx.current) if target is None else target
        )
        return (*NOTHING, *gradients, *[None] * plan.indices, *fed(ctx, encoded, matrix, others, gradients[0]))


NOTHING = (None, None, None, None)  # goes to what is no tensor of the graph


def awaited(plan: Plan, current: ForwardPass | None) -> Tensor | None:
    """A target that was set after the forward pass."""
    return current.take_target() if current is not None and plan.rule.needs_target else None


def alike_signal(plan: Plan, ctx: Any, error: Tensor) -> Tensor:
    """The signal that all points receive."""
    matrix, target = ctx.kept
    encoded = encode(plan, error, awaited(plan, ctx.current) if target is None else target)
    return project(encoded, matrix, plan.columns, plan.scale, plan.dtype)


def fed(ctx: Any, encoded: Tensor, matrix: Tensor | None, others: Sequence[Tensor], after: Tensor) -> list[Tensor]:
    """A signal for every point.

    Args:
        ctx: Of the node.
        encoded: ``[B, c]``.
        matrix: F; None where a projector stands in its place.
        others: The index tensors and, where the feedback learns, what came into the points.
        after: A gradient at the outputs.
    """
    plan: Plan = ctx.plan
    indices = others[: plan.indices]
    if plan.check_finite and indices:
        refuse_strange_indices(plan.slots, indices, encoded.shape[0])
    if plan.rule.local:
        return at_points(plan, encoded, others[plan.indices :], indices, ctx.slots, after)
    if plan.learner is not None:
        encoded = show(plan.learner, plan.loss_scale, encoded, others[plan.indices :], indices, ctx.slots, ctx.number)
    feedback = matrix if plan.projector is None else plan.projector
    scale = plan.scale if plan.carries_scale else plan.scale * lost_factors(plan, encoded)
    return signals(encoded, feedback, ctx.slots, columns=plan.columns, scale=scale, dtype=plan.dtype, indices=indices)


def at_points(
    plan: Plan,
    encoded: Tensor,
    values: Sequence[Tensor],
    indices: Sequence[Tensor],
    slots: Sequence[Slot],
    after: Tensor,
) -> list[Tensor]:
    """The signals of a rule that makes them at the points, from the targets."""
    assert plan.learner is not None
    factor = plan.scale * (plan.loss_scale or 1.0) * (encoded.shape[0] if plan.error_sum else 1)
    return local_signals(plan.learner, encoded, values, indices, slots, factor, plan.learns, after)


def fitted(slots: Sequence[Slot], values: Sequence[Tensor]) -> tuple[Slot, ...]:
    """`slots` with the shapes of what came into the points."""
    return tuple(
        [slot._replace(shape=value.shape, leaf=value.is_leaf) for slot, value in zip(slots, values, strict=True)]
    )


def lost_factors(plan: Plan, encoded: Tensor) -> float:
    """The factors of an encoded error that a projector does not carry."""
    return (plan.loss_scale or 1.0) * (encoded.shape[0] if plan.error_sum else 1)


def rows_of(gradients: Sequence[Tensor], widths: Sequence[int]) -> Tensor:
    """The error ``[B, c]``: the gradients at the outputs, side by side."""
    if len(widths) == 1:
        (error,) = gradients
        return error if error.dim() == 2 and error.shape[1] == widths[0] else error.reshape(-1, widths[0])
    return torch.cat([gradient.reshape(-1, width) for gradient, width in zip(gradients, widths, strict=True)], dim=1)


def encode(plan: Plan, error: Tensor, target: Tensor | None) -> Tensor:
    """What is projected, ``[B, c]``: what the rule makes of the error, refused if that would ruin the layers below."""
    rule, loss_scale = plan.rule, plan.loss_scale
    if plan.check_finite:
        error = checked(error, plan.names, rule.name, plan.must_know_scale)
    if rule.needs_target:
        if target is None:
            raise missing_target(rule.name)
        check_target(rule.name, target, *error.shape)
        if plan.check_finite and not torch.compiler.is_compiling():
            refuse_strange_target(rule, target, error)
    if rule.local:
        return rule.encode(error, target)  # type: ignore[attr-defined]
    if loss_scale is None or rule.carries_loss_scale:
        encoded = rule.encode(error, target)  # type: ignore[attr-defined]
    else:
        encoded = rule.encode(error / loss_scale, target) * loss_scale  # type: ignore[attr-defined]
    return encoded * error.shape[0] if plan.error_sum else encoded
