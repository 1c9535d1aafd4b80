"""Training without stored graphs and without a second run: rules that need no error, in the forward pass.

The first pass of each shape is one that is replayed, from which the layout is learned. From the second on every point
has its signal as it is passed, from the targets alone: the graph below it is backpropagated and freed on the spot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tinydfa.errors import ReplayError
from tinydfa.feedback.learner import Learner, learner_of
from tinydfa.memory.again import autocast_of
from tinydfa.memory.first_pass import FirstPass
from tinydfa.memory.kept import Kept
from tinydfa.memory.second_run import AT_HEAD, Layout, Run
from tinydfa.memory.supply import Supply
from tinydfa.node import encode
from tinydfa.passes.checks import refuse_strange_target
from tinydfa.passes.forward_pass import Link, Record, Rows, in_backward
from tinydfa.passes.shapes import check_target

if TYPE_CHECKING:
    from tinydfa.head import Head


class AtOnce:
    """A forward pass whose points get their gradients in it.

    Args:
        memory: The choice in force.
        link: What points and head share.
        layout: That of the pass before.
        instead: What this pass is if its first point is not like the one before.
    """

    def __init__(self, memory: Kept, link: Link, layout: Layout, instead: FirstPass) -> None:
        self.memory, self.link, self.layout, self.instead = memory, link, layout, instead
        self.target: Tensor | None = None
        self.run: AtOnceRun | None = None
        self.records: list[Record] = []

    @property
    def learner(self) -> Learner | None:
        """What sees the points in this pass."""
        handle = self.layout.plan.learner
        return None if handle is None else learner_of(handle)

    def at_point(self, point: Any, input: Tensor, rows: Rows | None) -> Tensor | None:
        """Train what is below a point; returns what it passes on."""
        if in_backward():
            return None
        if self.run is None:
            if rows is not None or input.shape != self.layout.expected[0].shape or not torch.is_grad_enabled():
                self.link.current.taker = self.instead
                return self.instead.at_point(point, input, rows)
            self.run = self._start()
        part = self.layout.expected[self.run.place].part if self.run.place < len(self.layout.expected) else None
        waits = part is not None and self.layout.closing[part.group] == AT_HEAD
        record = Record(point, input if waits else None, None, input.shape, None, torch.is_grad_enabled())
        self.records.append(record)
        self.link.current.records.append(record)
        return self.run.at_point(point, input, rows)

    def _start(self) -> AtOnceRun:
        """Everything that signals are made of, from the targets."""
        layout, plan = self.layout, self.layout.plan
        self.target = target = self.link.current.take_target()
        assert target is not None
        like = layout.like
        check_target(plan.rule.name, target, *like.shape)
        if plan.check_finite:
            refuse_strange_target(plan.rule, target, like)
        with torch.no_grad():
            encoded = encode(plan._replace(check_finite=False), like, target)
        matrix = plan.projector or layout.matrix
        supply = Supply(plan, encoded, matrix, [], layout.settings.own_columns)
        if self.learner is not None:
            self.learner.forget()
        parts = [
            known._replace(part=None) if known.part and layout.closing[known.part.group] == AT_HEAD else known
            for known in layout.expected
        ]
        closing = {group: place for group, place in layout.closing.items() if place != AT_HEAD}
        refuse_hooked(layout.shared)
        return AtOnceRun(self.link, replace(layout, expected=parts, closing=closing, leaves={}), supply)

    def join(self, head: Head, outputs: list[Tensor]) -> list[Tensor]:
        """Join the outputs and what hangs together with them; see that the gradients are still there when e comes."""
        if self.run is None:
            return self.instead.join(head, outputs)
        head._note_skipped(self.link.current.take(), outputs)
        self.run.refuse_unfinished()
        if self.learner is not None:
            waits = any(record.value is not None for record in self.records)
            self.learner.gather() if waits else self.learner.finish()
        outputs = head.feed(outputs, self.records, self.target)
        tied = {id(leaf) for leaf in self.layout.shared}
        trained = [leaf for leaf, _ in self.layout.versions if id(leaf) not in tied and not is_hooked(leaf)]
        self.memory.trained = [
            (leaf, leaf.grad.data_ptr(), leaf.grad._version) for leaf in trained if leaf.grad is not None
        ]
        if outputs[0].requires_grad:
            outputs[0].register_hook(partial(refuse_lost, self.memory))
        return outputs


class AtOnceRun(Run):
    """What is done at the points of a first pass that needs no second."""

    def __init__(self, link: Link, layout: Layout, supply: Supply) -> None:
        super().__init__(link, layout, supply)
        self.ambient = [one | {"enabled": False} for one in autocast_of({"cpu", supply.encoded.device.type})]

    def same_values(self, sample: Tensor | None, input: Tensor) -> bool:
        return True

    def done(self) -> None:
        """Nothing more is to do at points; the pass goes on."""

    def other_way(self, what: str) -> ReplayError:
        return ReplayError(
            f"this forward pass is not like the one before, and part of the layers have their gradients: {what}. "
            "Under memory='forward' the points of all passes must come in the same order and, those after the first, "
            "in shapes that follow from its shape. Use memory='replay'."
        )


def is_hooked(leaf: Tensor) -> bool:
    """Whether something is done with a gradient as soon as it is there."""
    return bool(getattr(leaf, "_post_accumulate_grad_hooks", None))


def refuse_hooked(shared: Sequence[Tensor]) -> None:
    """Refuse to show a hook parts of a gradient."""
    if any(is_hooked(leaf) for leaf in shared):
        raise ReplayError(
            "a weight that several blocks share has a hook that runs when its gradient is there "
            "(register_post_accumulate_grad_hook), and under memory='forward' its gradient comes in parts. Use "
            "memory='replay'."
        )


def refuse_lost(memory: Kept, error: Tensor) -> None:
    """Refuse a backward pass before which the gradients of the forward pass were zeroed."""
    for leaf, place, version in memory.trained:
        if leaf.grad is None or leaf.grad.data_ptr() != place or leaf.grad._version != version:
            raise ReplayError(
                "gradients changed between the forward and the backward pass. Under memory='forward' the hidden "
                "layers have theirs when the model returns: call optimizer.zero_grad() before the model, not after it."
            )
