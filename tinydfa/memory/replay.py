"""Training without stored graphs: the autograd node between outputs and points, which runs the model again.

In the first pass (`tinydfa.first_pass`) a point lets go of the graph below it. When e arrives at the node, the model
runs forward again (`tinydfa.second_run`), with the generators, autocast and buffers of the first time
(`tinydfa.again`). Of every weight matrix the output is computed twice and the gradient once, where backpropagation
computes the output and both gradients once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from tinydfa.errors import ReplayError
from tinydfa.feedback.learner import number_of
from tinydfa.memory.again import Again
from tinydfa.memory.second_run import Layout, Replayed, Run
from tinydfa.memory.supply import Supply
from tinydfa.node import encode, rows_of
from tinydfa.passes.checks import refuse_strange_indices
from tinydfa.passes.forward_pass import Link


class ReplayNode(torch.autograd.Function):
    """Outputs: the model's outputs, unchanged. Backward it runs the model again.

    Inputs are the outputs, the points whose graphs are kept, the model's inputs that ask for a gradient, and shared
    leaves; and a tensor that asks for one, so that the backward pass comes here even where nothing else does.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pending: Pending,
        trigger: Tensor,
        matrix: Tensor | None,
        target: Tensor | None,
        indices: Sequence[Tensor],
        *tensors: Tensor,
    ) -> Any:
        ctx.trigger = torch.autograd.graph.get_gradient_edge(trigger).node
        ctx.pending, ctx.kept = pending, (matrix, target, *indices)  # not saved: a recomputation saves nothing
        first = len(pending.layout.plan.widths)
        ctx.values = [value.detach() for value in tensors[first : first + len(pending.layout.kept)]]
        return tensors[:first]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.pending is None:
            raise ReplayError("this pass was backpropagated a second time. Pass retain_graph=True the first time.")
        if torch.is_grad_enabled():
            raise ReplayError(
                "memory= computes gradients without a graph of them, so create_graph=True has nothing to record. "
                "Attach without memory=."
            )
        if not torch._C._will_engine_execute_node(ctx.trigger):
            raise ReplayError(
                "torch.autograd.grad and backward(inputs=...) ask for some gradients alone, and under memory= the "
                "blocks add all of theirs to .grad. Use loss.backward(), or attach without memory=."
            )
        matrix, target, *indices = ctx.kept
        found = ctx.pending.backward(gradients, matrix, target, indices, ctx.values)
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.pending, ctx.kept, ctx.values = None, (), []
        return (None, None, None, None, None, *found)


class Pending:
    """All that a node needs to run a pass again.

    Args:
        link: What points and head share.
        again: The pass.
        layout: What it looked like.
    """

    def __init__(self, link: Link, again: Again, layout: Layout) -> None:
        self.link, self.again, self.layout = link, again, layout
        self.number = number_of(layout.plan.learner)

    def backward(
        self,
        gradients: Sequence[Tensor],
        matrix: Tensor | None,
        target: Tensor | None,
        indices: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> list[Tensor | None]:
        """The gradients of the node's tensors."""
        layout, plan, again = self.layout, self.layout.plan, self.again
        again.refuse_changed_arguments("something between the forward and the backward pass")
        refuse_changed_weights(layout.versions)
        if target is None and plan.rule.needs_target:
            target = self.link.current.take_target()
        encoded = encode(plan, rows_of(gradients, plan.widths), target)
        if plan.check_finite and indices:
            refuse_strange_indices(plan.slots, indices, encoded.shape[0])
        supply = Supply(plan, encoded, matrix, indices, layout.settings.own_columns, self.number)
        del encoded
        inputs = [input.detach().requires_grad_() for input in again.inputs]
        run = Run(self.link, layout, supply, gradients, inputs)
        self._run(run, {id(input): new for input, new in zip(again.inputs, inputs, strict=True)})
        of_outputs = [None] * len(gradients) if layout.outputs_again >= 0 else list(gradients)
        supply.share = True
        signals = [supply.signal(slot, value, slot.leaf) for (slot, _), value in zip(layout.kept, values, strict=True)]
        return [*of_outputs, *signals, *[new.grad for new in inputs], *[run.sums.get(id(p)) for p in layout.shared]]

    def _run(self, run: Run, replaced: dict[int, Tensor]) -> None:
        with self.link.nested():
            current = self.link.current
            current.open, current.taker = True, run
            with suppress(Replayed):
                self.again.run(replaced)
        run.refuse_unfinished()


def refuse_changed_weights(versions: Sequence[tuple[Tensor, int]]) -> None:
    """Refuse weights that were written to between the two runs."""
    if any([weight._version != version for weight, version in versions]):  # noqa: C419
        raise ReplayError(
            "a weight was written to between the forward and the backward pass, and under memory= the model runs "
            "forward again in the backward pass: it would not see the weights that the loss was computed with. Step "
            "the optimiser after the backward pass."
        )
