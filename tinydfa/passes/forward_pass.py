"""What the points and the head of one model share: the settings in force, the pass in progress, and who is looking.

Plain objects, no modules: they are no part of the model's tree, and a copy of the model copies them along.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tinydfa.errors import PointError
from tinydfa.feedback.drawn import Feedback
from tinydfa.rules import DFA, Rule

BatchDims = tuple[int, ...] | None


@dataclass(frozen=True)
class Settings:
    """All that decides what a pass does with its shapes: how a pass was planned holds as long as these do."""

    rule: Rule = field(default_factory=DFA)
    feedback: Feedback = field(default_factory=Feedback)
    batch_dims: BatchDims = (0,)
    loss_scale: float | None = None  # for rules that do not carry a factor on the loss, if it was told
    device: Any = None  # of the projection; None: the output's

    @property
    def own_columns(self) -> bool:
        """Whether every point has columns of its own."""
        return self.rule.learns or not self.feedback.shared

    @property
    def must_know_scale(self) -> bool:
        """Whether a factor on the loss that nobody told would do harm."""
        return self.loss_scale is None and not self.carries_scale

    @property
    def carries_scale(self) -> bool:
        carried = self.rule.carries_loss_scale and not self.rule.feels_loss_scale
        return carried and getattr(self.feedback.projector, "carries_scale", True)


class Point(Protocol):
    """What the head asks of a feedback point (`tinydfa.DFALayer`)."""

    batch_dims: BatchDims
    width: int | None
    skipped: bool
    is_output: bool

    @property
    def label(self) -> str: ...


class Rows(NamedTuple):
    """Which rows of the output the rows of a point belong to."""

    sample: Tensor | None = None  # of each row of the point: [rows] int64, negative for none; or a mask of its rows
    group: Tensor | None = None  # of each row of the output: [B] int64; `sample` then counts groups
    samples: int | None = None  # how many there are, as a packed sequence knows
    packed: bool = False  # the point is the data of one: a row a step, whatever the batch dimensions of the output


class Record(NamedTuple):
    """One point in one forward pass."""

    point: Any  # a Point
    value: Tensor | None  # what came in, with its graph; None where no gradient is asked for
    passed: Tensor | None  # what went on: `value` detached
    shape: torch.Size
    rows: Rows | None
    graded: bool  # gradients were being recorded


Fed = tuple[Any, Tensor, Tensor]  # how a record begins: all there is to note of most points, and quickly made


def full(record: Record | Fed) -> Record:
    """A record with all its fields."""
    if isinstance(record, Record):
        return record
    point, value, passed = record
    return Record(point, value, passed, value.shape, None, True)


class ForwardPass:
    """What one forward pass gathers; empty between two passes, apart from what was said about the next one."""

    def __init__(self) -> None:
        self.records: list[Record | Fed] = []
        self.open = False  # an attached model's pass is in progress
        self.number = 0  # of the forward that began it
        self.taker: Any = None  # what takes its points and its outputs, where not everything is kept for the head
        self.target: Tensor | None = None
        self.rows: dict[str, Rows] | Rows | None = None

    def rows_of(self, point: Point) -> Rows | None:
        return self.rows.get(point.label) if isinstance(self.rows, dict) else self.rows

    def take(self) -> list[Record]:
        """The records so far, which are then no longer here."""
        records = [full(record) for record in self.records]
        self.records = []
        return records

    def take_target(self) -> Tensor | None:
        target = self.target
        self.target = None
        return target


class PerThread(threading.local):
    """The pass of each thread; a copied model begins with none."""

    def __init__(self) -> None:
        self.current = ForwardPass()

    def __reduce__(self) -> Any:
        return PerThread, ()


class Observation:
    """What passes the points and the head while somebody looks (alignment, doctor)."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, Tensor]] = []  # points and what came in
        self.at_head: list[Tensor] = []  # where the error is taken
        self.sample_dims: tuple[int, ...] = (0,)

    def note(self, point: Any, value: Tensor, rows: Rows | None) -> Tensor:
        """See what comes into a point; returns what does so from here on."""
        self.seen.append((point, value))
        return value

    def is_output(self, value: Tensor) -> bool:
        return any(value is output for output in self.at_head)


class Link:
    """What joins the points of one model to their head.

    A pass of an attached model is known to begin and to end, also by an exception (`scoped`). Of a head without
    `attach` only the end is known. There a point that runs again before the head means that a new pass has begun and
    that the one before was broken off, so all its records are dropped.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.passes = PerThread()
        self.observation: Observation | None = None
        self.scoped = False
        self.suspended = 0  # blocks of `backprop()` in progress
        self.model: Any = None  # the attached one
        self.order: Any = None  # of its hooks (`tinydfa.order`)
        self.still = 0  # blocks in which no feedback learns
        self.memory: Any = None  # what a pass keeps for its backward pass (a `tinydfa.memory.Memory`); None: all
        self.cuts = self.settings.rule.cuts  # whether points cut now
        self.looks = self.settings.rule.looks  # whether some passes show more than others
        self.uncut = -1  # the backward pass, by the engine's number, whose recomputations are not cut

    @property
    def rule(self) -> Rule:
        return self.settings.rule

    @property
    def whole(self) -> bool:
        """Whether every process has the whole model: then a pass without gradients tells the widths of the points."""
        tensors = sys.modules.get("torch.distributed.tensor")
        if tensors is None or self.model is None:
            return True
        return not any(isinstance(parameter, tensors.DTensor) for parameter in self.model.parameters())

    @property
    def current(self) -> ForwardPass:
        """The pass in progress in this thread."""
        return self.passes.current

    def change(self, **settings: Any) -> None:
        """Put other settings in force."""
        self.settings = replace(self.settings, **settings)
        self.cuts = self.settings.rule.cuts and not self.suspended
        self.looks = self.settings.rule.looks

    def write(self, record: Record) -> None:
        """Keep a point for the head."""
        current = self.current
        if not self.scoped:
            if any(kept[0] is record.point for kept in current.records):
                current.records = []
        elif not current.open:
            if record.value is None:
                return
            raise PointError(
                f"feedback point {record.point.label!r} ran outside a call of the attached model, so no head feeds it "
                "and everything below it would keep its weights. Call model(...) itself, in the thread where it runs, "
                "or attach to the submodule that you call. To train a part of the model, or a graph traced from it, by "
                "backpropagation, call attachment.detach() first."
            )
        current.records.append(record)

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Inside this block is a pass of its own, which the one in progress calls for."""
        outer, self.passes.current = self.passes.current, ForwardPass()
        try:
            yield
        finally:
            self.passes.current = outer

    @contextmanager
    def backprop(self) -> Iterator[None]:
        """Inside this block the points let the gradient through."""
        self.suspended += 1
        self.cuts = False
        try:
            yield
        finally:
            self.suspended -= 1
            self.cuts = self.settings.rule.cuts and not self.suspended

    @contextmanager
    def observed(self, by: Observation | None = None) -> Iterator[Observation]:
        """Inside this block the points and the head note what passes them."""
        self.observation = seen = by or Observation()
        try:
            yield seen
        finally:
            self.observation = None

    @contextmanager
    def unlearning(self) -> Iterator[None]:
        """Inside this block backward passes leave the feedback as it is."""
        self.still += 1
        try:
            yield
        finally:
            self.still -= 1


def in_backward() -> bool:
    """Whether a backward pass is running: a forward pass seen then is a recomputation (`torch.utils.checkpoint`)."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def transformed() -> bool:
    """Whether a transform of ``torch.func`` is in force, where a tensor may not say that its gradient is asked for."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


@torch.compiler.disable
def hand_over(taker: Any, point: Any, input: Tensor, rows: Rows | None) -> Tensor | None:
    """What a point passes on under a taker; None where this call is none of its pass."""
    passed: Tensor | None = taker.at_point(point, input, rows)
    return passed


def is_output(records: list[Record], outputs: list[Tensor]) -> bool:
    """Whether some output is a point itself: then it is what passed one of the last points, one for every output."""
    return any([record.passed is output for record in records[-len(outputs) :] for output in outputs])  # noqa: C419


def through_points(records: list[Record], outputs: list[Tensor]) -> list[Tensor]:
    """Outputs that are points themselves, as they were before the point: such a point feeds nothing, it is the output.

    Their records are dropped.
    """
    found = []
    for output in outputs:
        place = next((i for i, record in enumerate(records) if record.passed is output), None)
        if place is None:
            found.append(output)
            continue
        record = records.pop(place)
        found.append(output if record.value is None else record.value)
        if not record.point.is_output:
            record.point.is_output = True
    return found


def has_rows(records: Sequence[Record]) -> bool:
    """Whether any point was told which samples its rows belong to."""
    return any(record.rows is not None for record in records)
