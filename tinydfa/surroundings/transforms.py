"""The head's node inside `torch.func`: ``vmap``, ``grad``, ``vjp``, ``jacrev`` and their nestings.

Inside a transform a tensor does not say whether somebody asks for its gradient, and an autograd node must say how it
is batched. So there points feed every value, and the head joins them by `FunctionalNode`, whose backward pass is
tensor operations only: a look at the error's size would need a number, which a batched tensor does not have.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tinydfa.errors import DFAError
from tinydfa.node import Plan, encode, lost_factors, rows_of
from tinydfa.signals import signals


class FunctionalNode(torch.autograd.Function):
    """`tinydfa.node.Node`, batched and differentiated by ``torch.func``."""

    generate_vmap_rule = True

    @staticmethod
    def join(plan: Plan, matrix: Tensor | None, target: Tensor | None, *tensors: Tensor) -> Any:
        """The outputs, joined with what came into the points.

        Args:
            plan: What the backward pass does.
            matrix: F; None where a projector stands in its place.
            target: Of rules that read it.
            tensors: The outputs, then index tensors, then what came into the points.

        Raises:
            DFAError: The rule learns: its feedback would change inside a function that is to be pure.
        """
        if plan.rule.learns:
            raise DFAError(
                f"{plan.rule.name} changes its feedback in every backward pass, and inside torch.func (vmap, grad) a "
                "function must change nothing. Call the model outside, with loss.backward(), or use a rule that does "
                "not learn."
            )
        if plan.rule.needs_target and target is None:
            raise DFAError(
                f"{plan.rule.name} reads the targets: inside torch.func set attachment.target before the model is "
                "called."
            )
        return FunctionalNode.apply(plan._replace(check_finite=False), matrix, target, *tensors)

    @staticmethod
    def forward(plan: Plan, matrix: Tensor | None, target: Tensor | None, *tensors: Tensor) -> Any:
        outputs = tuple([output.view_as(output) for output in tensors[: len(plan.widths)]])
        return outputs[0] if len(outputs) == 1 else outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        plan, matrix, target, *tensors = inputs
        first = len(plan.widths)
        ctx.plan = plan
        ctx.save_for_backward(matrix, target, *tensors[first : first + plan.indices])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        plan: Plan = ctx.plan
        matrix, target, *indices = ctx.saved_tensors
        encoded = encode(plan, rows_of(gradients, plan.widths), target)
        scale = plan.scale if plan.carries_scale else plan.scale * lost_factors(plan, encoded)
        feedback = matrix if plan.projector is None else plan.projector
        found = signals(
            encoded, feedback, plan.slots, columns=plan.columns, scale=scale, dtype=plan.dtype, indices=indices
        )
        return None, None, None, *gradients, *[None] * plan.indices, *found

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise DFAError(
            "the feedback of a hidden layer is defined for reverse mode: there is no forward-mode derivative (jvp, "
            "jacfwd, hessian) of a model that trains by feedback. Use torch.func.grad, vjp or jacrev, or call the "
            "model inside `with attachment.backprop()`."
        )
