"""Training without stored graphs: the second run, when the error is known.

In the first pass (`tinydfa.first_pass`) a point lets go of the graph below it. When e arrives at the head's node, the
model runs forward again, with the generators, autocast and buffers of the first time. Every point now knows its
signal: the graph below it is backpropagated and freed on the spot, and the run is broken off after the last point that
needs it. Of every weight matrix the output is computed twice and the gradient once, where backpropagation computes
the output and both gradients once.

Points whose graphs hang together (`tinydfa.tangles`) are backpropagated together, and with the output if they hang
together with it. Weights that several groups end in get the sum of their gradients at the end, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from tinydfa.again import Again, autocast_of, entered
from tinydfa.checks import refuse_strange_indices
from tinydfa.errors import ReplayError
from tinydfa.node import Plan, encode, rows_of
from tinydfa.passes import Link, Settings
from tinydfa.probe import differ, probe
from tinydfa.shapes import batch_first
from tinydfa.signals import Slot
from tinydfa.supply import Supply, in_place

AT_HEAD = -1  # where the group of the outputs closes


class Replayed(BaseException):
    """Ends a run of which nothing more is needed; not an `Exception`, which a model might catch."""


class Part(NamedTuple):
    """What a point does in the second run."""

    group: int  # those that hang together with it
    slot: Slot | None  # None: it is an output itself
    dims: tuple[int, ...]  # its batch dimensions
    output: int = -1  # which output it is


class Expected(NamedTuple):
    """A point as it was in the first pass."""

    point: Any
    shape: torch.Size
    sample: Tensor | None  # of its values; None where no gradient is asked for
    part: Part | None  # None: nothing is to do


@dataclass
class Layout:
    """What a pass looked like, and what is to be done at its points.

    Attributes:
        settings: Those in force.
        plan: The node's; its slots are those of the points that are fed.
        expected: Every point that ran, in order.
        closing: For every group the place of its last point; `AT_HEAD` where the outputs belong to it.
        kept: Slots and batch dimensions of the points whose graphs were kept.
        shared: Leaves that several groups end in.
        leaves: All leaves of the groups that end in shared ones.
        versions: The weights, and how often they had been written to.
        matrix: F.
        like: A tensor of the error's shape, type and place, ``[B, c]``.
    """

    settings: Settings
    plan: Plan
    expected: list[Expected]
    closing: dict[int, int]
    kept: list[tuple[Slot, tuple[int, ...]]]
    output_dims: tuple[tuple[int, ...], ...]
    matrix: Tensor | None
    like: Tensor
    shared: list[Tensor] = field(default_factory=list)
    leaves: dict[int, list[Tensor]] = field(default_factory=dict)
    versions: list[tuple[Tensor, int]] = field(default_factory=list)

    @property
    def outputs_again(self) -> int:
        """The group that the outputs belong to; -1: they are not computed again."""
        return next((group for group, place in self.closing.items() if place == AT_HEAD), -1)


class Run:
    """The second run of one pass, or what is done at the points of a first one that needs no second.

    Args:
        link: What points and head share.
        layout: What the first pass looked like.
        supply: Signals.
        gradients: Those of the outputs, their batch dimensions in front.
        inputs: What stands in for the model's inputs that ask for a gradient.
    """

    def __init__(
        self,
        link: Link,
        layout: Layout,
        supply: Supply,
        gradients: Sequence[Tensor] = (),
        inputs: Sequence[Tensor] = (),
    ) -> None:
        self.link, self.layout, self.supply = link, layout, supply
        self.gradients, self.inputs = gradients, list(inputs)
        self.task = torch._C._current_graph_task_id()
        self.ambient = autocast_of({"cpu", supply.encoded.device.type})
        self.place = 0
        self.sums: dict[int, Tensor] = {}  # of the gradients of shared leaves
        self._open: dict[int, tuple[list[Any], list[Tensor]]] = {}
        self._closing = {place: group for group, place in layout.closing.items()}

    def at_point(self, point: Any, input: Tensor, index: Tensor | None) -> Tensor | None:
        """Give a point its signal; returns what it passes on."""
        if self.task != torch._C._current_graph_task_id():  # recomputed by a checkpoint
            return None
        expected = self._expected(point, input)
        passed = input if point.passthrough else input.detach()
        if expected.part is not None:
            values, signals = self._open.setdefault(expected.part.group, ([], []))
            value = batch_first(input, expected.part.dims)
            root, signal = self._signal(expected.part, value, value is input)
            values.append(root)
            signals.append(signal)
            del value, root, signal
        place, self.place = self.place, self.place + 1
        if place in self._closing:
            self._close(self._closing.pop(place))
            if not self._closing:
                self.done()
        return passed

    def done(self) -> None:
        """Nothing more is to do."""
        raise Replayed

    def join(self, head: Any, outputs: Sequence[Tensor]) -> NoReturn:
        """Give the outputs their error, where they are computed again."""
        if AT_HEAD not in self._closing:
            self.refuse_unfinished()
        group = self._closing.pop(AT_HEAD)
        values, signals = self._open.setdefault(group, ([], []))
        for output, dims, gradient in zip(outputs, self.layout.output_dims, self.gradients, strict=True):
            if output.requires_grad:
                values.append(batch_first(output, dims))
                signals.append(gradient)
        self._close(group)
        raise Replayed

    def refuse_unfinished(self) -> None:
        if self._closing:
            missing = self.layout.expected[self.place].point.label if self.place < len(self.layout.expected) else "head"
            raise self.other_way(f"it ended before {missing!r}")

    @torch.no_grad()
    def _signal(self, part: Part, value: Tensor, itself: bool) -> tuple[Any, Tensor]:
        """Where in the graph a point's backward pass begins, and with what."""
        if part.slot is None:
            return value, self.gradients[part.output]
        signal = self.supply.signal(part.slot, value, value.is_leaf)
        return in_place(value, signal) if itself and self.supply.is_fresh(signal) else (value, signal)

    def same_values(self, sample: Tensor, input: Tensor) -> bool:
        """Whether `sample` is of values like these."""
        return not differ(sample, probe(input))

    def other_way(self, what: str) -> ReplayError:
        return ReplayError(
            f"the model did not do the same when it ran forward again: {what}. Under memory= it must be repeatable: "
            "randomness from torch's generators alone, and no state that a forward pass changes outside its buffers. "
            "Mend that, or attach without memory=."
        )

    def _expected(self, point: Any, input: Tensor) -> Expected:
        known = self.layout.expected
        if self.place >= len(known):
            raise self.other_way(f"feedback point {point.label!r} came after all others")
        expected = known[self.place]
        if point is not expected.point:
            raise self.other_way(f"feedback point {point.label!r} came in place of {expected.point.label!r}")
        if input.shape != expected.shape:
            raise self.other_way(
                f"at feedback point {point.label!r} the shape was {tuple(expected.shape)} and is {tuple(input.shape)}"
            )
        if input.requires_grad != (expected.sample is not None):
            raise self.other_way(f"what asks for a gradient at feedback point {point.label!r} is not what did")
        if expected.part is not None and not self.same_values(expected.sample, input):
            raise self.other_way(f"at feedback point {point.label!r} the values are others")
        return expected

    def _close(self, group: int) -> None:
        """Backpropagate what hangs below a group of points."""
        values, signals = self._open.pop(group)
        with entered(self.ambient):
            if group not in self.layout.leaves:
                torch.autograd.backward(values, signals)
            else:
                self._backward_apart(values, signals, self.layout.leaves[group])

    def _backward_apart(self, values: list[Any], signals: list[Tensor], leaves: list[Tensor]) -> None:
        """The same where some leaves are shared: their gradients are added up until the end."""
        leaves = [*leaves, *self.inputs]
        found = torch.autograd.grad(values, leaves, signals, allow_unused=True)
        tied = {id(leaf) for leaf in self.layout.shared}
        own = [(leaf, g) for leaf, g in zip(leaves, found, strict=True) if g is not None and id(leaf) not in tied]
        for leaf, gradient in zip(leaves, found, strict=True):
            if gradient is not None and id(leaf) in tied:
                before = self.sums.get(id(leaf))
                self.sums[id(leaf)] = gradient if before is None else before + gradient
        if own:
            torch.autograd.backward([leaf for leaf, _ in own], [gradient for _, gradient in own])


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
        if not torch._C._will_engine_execute_node(ctx.trigger):  # type: ignore[attr-defined]
            raise ReplayError(
                "torch.autograd.grad and backward(inputs=...) ask for some gradients alone, and under memory= the "
                "blocks add all of theirs to .grad. Use loss.backward(), or attach without memory=."
            )
        matrix, target, *indices = ctx.kept
        found = ctx.pending.backward(gradients, matrix, target, indices, ctx.values)
        if not torch._C._autograd._get_current_graph_task_keep_graph():  # type: ignore[attr-defined]
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
        supply = Supply(plan, encoded, matrix, indices, layout.settings.own_columns)
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
