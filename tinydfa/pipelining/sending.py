"""The error on the last stage: taken at the output, encoded by the rule, ready to be broadcast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinydfa.errors import PointError
from tinydfa.feedback.drawn import Feedback
from tinydfa.passes.checks import checked, refuse_strange_target
from tinydfa.passes.shapes import batch_first, check_target, error_of
from tinydfa.pipelining.points import Pass

BatchDims = tuple[int, ...] | None


class Sender:
    """What makes of a loss what is broadcast.

    Args:
        rule: Encodes the error.
        feedback: How it is projected.
        batch_dims: Dimensions of the output that count samples; None: all but the last.
        microbatches: M.
        averaged: The loss counts 1/M.
    """

    def __init__(self, rule: Any, feedback: Feedback, batch_dims: BatchDims, microbatches: int, averaged: bool) -> None:
        self.rule, self.feedback, self.batch_dims = rule, feedback, batch_dims
        self.microbatches, self.averaged = microbatches, averaged

    def error(self, passed: Pass, loss: Tensor) -> Tensor:
        """e at the output, in its shape. What lies above the output gets its gradients here."""
        if passed.top is None:
            raise PointError("the last stage ran without reaching the output that the error is taken at.")
        (loss / self.microbatches if self.averaged else loss).backward()
        if passed.top.grad is None:
            raise PointError("the loss does not depend on the output that the error is taken at. Name another output.")
        return passed.top.grad

    def rows(self, error: Tensor) -> Tensor:
        """e as ``[B, c]``."""
        found = error_of(self.batch_dims, [error])
        return batch_first(error, found.dims[0]).reshape(found.samples, found.width)

    def encoded(self, error: Tensor, target: Any) -> Tensor:
        """What is projected of an error ``[B, c]``."""
        rule = self.rule
        if self.feedback.check_finite:
            error = checked(error, "of the pipeline", rule.name, not rule.carries_loss_scale)
        if rule.needs_target:
            check_target(rule.name, target, *error.shape)
            if self.feedback.check_finite:
                refuse_strange_target(rule, target, error)
        with torch.no_grad():
            encoded = rule.encode(error, target).to(error.dtype)  # which the other stages expect
        if rule.local:
            return encoded
        found: Tensor = encoded * (error.shape[0] * self.microbatches) if self.feedback.error_sum else encoded
        return found
