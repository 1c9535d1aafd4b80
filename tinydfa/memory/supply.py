"""Signals for one point after another, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from tinydfa.feedback.learner import show
from tinydfa.node import Plan, at_points, lost_factors
from tinydfa.signals import Slot, columns_of, project, to_rows

CHEAP = 16  # a product with the feedback that is so many times narrower than the point costs less than keeping it


class Supply:
    """What `tinydfa.signals.signals` returns for all points, one at a time.

    Of columns that points share, the projection is kept, or made for each point anew where the error is narrow. Of
    columns of its own a point's projection is made when it is its turn.

    Args:
        plan: The node's.
        encoded: What is projected, ``[B, c]``.
        matrix: F, ``[c, D]``; None behind a projector.
        indices: Those that the slots refer to.
        own: Every point has columns of its own.
        number: Of the training pass, for a rule that learns.

    Attributes:
        share: Signals to come are needed at the same time, so they share memory where they can.
    """

    def __init__(
        self,
        plan: Plan,
        encoded: Tensor,
        matrix: Tensor | None,
        indices: Sequence[Tensor],
        own: bool,
        number: int = 0,
    ) -> None:
        self.plan, self.encoded, self.indices, self.own, self.number = plan, encoded, indices, own, number
        self.matrix = matrix if plan.projector is None else None
        self.scale = plan.scale if plan.carries_scale else plan.scale * lost_factors(plan, encoded)
        self.share = False
        self._kept: Tensor | None = None

    def signal(self, slot: Slot, value: Tensor, leaf: bool = False) -> Tensor:
        """What `value`, its batch dimensions in front, receives; a leaf keeps it, so it gets memory of its own."""
        if self.plan.rule.local:
            return at_points(self.plan, self.encoded, [value], self.indices, [slot], self.encoded)[0]
        if self.plan.learner is not None:
            show(self.plan.learner, self.plan.loss_scale, self.encoded, [value], self.indices, [slot], self.number)
        part = columns_of(self._projection(slot), slot)
        if slot.sample >= 0 or slot.group >= 0 or part.shape != slot.shape:
            part = to_rows(part, slot, self.indices)
        return part.clone() if leaf and not self.is_fresh(part) else part

    def is_fresh(self, signal: Tensor) -> bool:
        """Whether a signal has its memory for itself."""
        return self._kept is None or signal.untyped_storage().data_ptr() != self._kept.untyped_storage().data_ptr()

    def _projection(self, slot: Slot) -> Tensor:
        if self.matrix is not None and self.own:
            return self._project(self.matrix[:, slot.start : slot.start + slot.width], slot.width)
        if self._kept is not None:
            return self._kept
        if self.matrix is None:
            self._kept = self._project(self.plan.projector, self.plan.columns)
            return self._kept
        projected = self._project(self.matrix, self.plan.columns)
        if self.share or slot.width != self.plan.columns or self.matrix.shape[0] * CHEAP > slot.width:
            self._kept = projected
        return projected

    def _project(self, feedback: Any, columns: int) -> Tensor:
        return project(self.encoded, feedback, columns, self.scale, self.plan.dtype)


def in_place(value: Tensor, signal: Tensor) -> tuple[Any, Tensor]:
    """Take the activation that computed `value` back in the signal's own memory, where that is possible.

    Returns:
        Where in the graph to go on from, and with what.
    """
    step = value.grad_fn
    if step is None or value._backward_hooks or value.retains_grad or signal.dtype != value.dtype:
        return value, signal
    undo = UNDO.get(step.name())
    if undo is None or signal.stride() != value.stride():  # else the result would be laid out in another way
        return value, signal
    below, number = step.next_functions[0]
    if below is None:
        return value, signal
    undo(step, signal)
    return GradientEdge(below, number), signal


def _relu(step: Any, signal: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(signal, step._saved_result, 0, grad_input=signal)


def _tanh(step: Any, signal: Tensor) -> None:
    torch.ops.aten.tanh_backward.grad_input(signal, step._saved_result, grad_input=signal)


def _gelu(step: Any, signal: Tensor) -> None:
    of = step._saved_self, step._saved_approximate
    torch.ops.aten.gelu_backward.grad_input(signal, of[0], approximate=of[1], grad_input=signal)


UNDO: dict[str, Callable[[Any, Tensor], None]] = {
    "ReluBackward0": _relu,
    "TanhBackward0": _tanh,
    "GeluBackward0": _gelu,
}
