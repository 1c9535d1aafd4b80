"""Training without stored graphs: the second run of the model, in which every point has its signal as it is passed.

The graph below a point is backpropagated and freed on the spot, and the run is broken off after the last point that
needs it. Points whose graphs hang together (`tinydfa.tangles`) are backpropagated together, and with the output if they
hang together with it. Weights that several groups end in get the sum of their gradients at the end, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from tinydfa.errors import ReplayError
from tinydfa.memory.again import autocast_of, entered
from tinydfa.memory.probe import differ, probe
from tinydfa.memory.supply import Supply, in_place
from tinydfa.node import Plan
from tinydfa.passes.forward_pass import Link, Rows, Settings
from tinydfa.passes.shapes import batch_first
from tinydfa.signals import Slot

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
        head: What holds it.
        like: A tensor of the error's shape, type and place, ``[B, c]``.
    """

    settings: Settings
    plan: Plan
    expected: list[Expected]
    closing: dict[int, int]
    kept: list[tuple[Slot, tuple[int, ...]]]
    output_dims: tuple[tuple[int, ...], ...]
    matrix: Tensor | None
    head: Any
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

    def at_point(self, point: Any, input: Tensor, rows: Rows | None) -> Tensor | None:
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

    def same_values(self, sample: Tensor | None, input: Tensor) -> bool:
        """Whether `sample` is of values like these."""
        return sample is None or not differ(sample, probe(input))

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
