"""The head: it takes the error where it stands and feeds every feedback point from there.

Forward, the head returns the model's output unchanged. Backward, it receives e, the gradient of the loss at the
output, and returns one gradient for every point of that forward pass (`tinydfa.node`, `tinydfa.signals`).

Letters: B samples (all batch dimensions flattened), c width of the error, D columns of the feedback, d width of a
point. Source: arXiv 2006.12878, eq. 4 and its code release.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tinydfa.errors import PointError
from tinydfa.feedback.drawn import Feedback
from tinydfa.holder import Holder
from tinydfa.node import Node
from tinydfa.passes.checks import missing_target, refuse_half_precision, refuse_several_outputs
from tinydfa.passes.forward_pass import (
    BatchDims,
    Fed,
    Link,
    Record,
    Settings,
    has_rows,
    in_backward,
    is_output,
    through_points,
    transformed,
)
from tinydfa.passes.known import Known
from tinydfa.passes.shapes import Error, batch_first, error_of, sample_dims
from tinydfa.planning import Columns, Planned, Taught, check_columns, columns_of, planned
from tinydfa.points import DFALayer
from tinydfa.rules import Rule
from tinydfa.signals import has_numbers
from tinydfa.surroundings.around import around
from tinydfa.surroundings.sharded import whole
from tinydfa.surroundings.tracing import is_tracing
from tinydfa.surroundings.transforms import FunctionalNode


class Head(Holder):
    """The head of a broadcasting rule, placed where the error is taken (usually the model's output).

    Args:
        points: The feedback points it feeds, in a list or an `nn.ModuleList`.
        feedback: Distribution, scaling and seed of F, or what projects in its place.
        batch_dims: Dimensions that count samples, of the output and of every point that names none of its own. None:
            all but the output's last, and as many leading ones at the points.
        adopt: Take the points over at once; False: when `adopt` is called.

    Shapes:
        output ``[*batch, c]``; a point ``[*batch, *features]``. A point with k times as many rows as the output
        repeats its sample's signal k times, divided by sqrt(k) (as the 2020 release does).

    Attributes:
        feedback_matrix: F, ``[c, D]``, a buffer: drawn in the first forward pass, or assigned, or loaded.
        learner: What a rule that learns has made of the feedback; None before its first pass.

    Raises:
        PointError: There are no points, or a forward pass reached the head without passing any.
        ShapeError: The width of the output or of a point does not fit the feedback matrix.

    Example:
        >>> point = DFALayer()
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), point, nn.Linear(8, 2), Head([point]))
        >>> net(torch.ones(3, 4)).sum().backward()
        >>> net[-1].feedback_matrix.shape
        torch.Size([2, 8])
    """

    feeds_the_output = False  # a point at the output itself: the error passes it as it is, or its projection is sent

    def __init__(
        self,
        points: Sequence[DFALayer] | nn.ModuleList,
        feedback: Feedback | None = None,
        batch_dims: BatchDims = None,
        adopt: bool = True,
    ) -> None:
        super().__init__()
        if len(points) == 0:
            raise PointError("a head without feedback points trains nothing below it. Pass at least one DFALayer.")
        self.dfa_layers = points
        self.link = Link(Settings(feedback=feedback or Feedback(), batch_dims=batch_dims))
        self._known: Known | None = None  # how the pass before was planned
        if adopt:
            self.adopt()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_known": None}  # a copy learns for itself, and plans anew

    def adopt(self) -> None:
        """Make the points this head's."""
        for number, layer in enumerate(self.points):
            layer.name = layer.name or f"dfa_layers.{number}"
            layer.link = self.link

    @property
    def points(self) -> list[DFALayer]:
        return list(self.dfa_layers)  # type: ignore[arg-type]

    @property
    def feedback(self) -> Feedback:
        return self.link.settings.feedback

    @feedback.setter
    def feedback(self, feedback: Feedback) -> None:
        self.link.change(feedback=feedback)

    @property
    def batch_dims(self) -> BatchDims:
        return self.link.settings.batch_dims

    @batch_dims.setter
    def batch_dims(self, batch_dims: BatchDims) -> None:
        self.link.change(batch_dims=batch_dims)

    def forward(self, input: Tensor) -> Tensor:
        """Return `input`; in the backward pass its gradient also goes to the points of this forward pass."""
        joined = self.again(input)
        return self.take([input])[0] if joined is None else joined

    def again(self, output: Tensor) -> Tensor | None:
        """What `take` does, in the shortest way, if this pass is like the one before; else None."""
        known = self._known
        if known is None or torch.compiler.is_compiling():
            return None
        link = self.link
        current = link.current
        records = current.records
        if (
            not known.all_fed
            or current.taker is not None
            or not records
            or transformed()
            or link.observation is not None
            or not known.holds(link, self._buffers["feedback_matrix"], (output,), records)
            or not self._broadcasts(link.settings)
            or (records[-1][2] is output and not self.feeds_the_output)
        ):
            return None
        current.records = []
        target, current.target = current.target, None
        made: Planned = known.made
        if not made.in_front:
            return join(made, link, [output], records, target)[0]
        again: Tensor = Node.apply(made.plan, current, made.matrix, target, output, *[record[1] for record in records])
        return again

    def take(self, outputs: list[Tensor]) -> list[Tensor]:
        """Return `outputs`; their gradients, side by side, are the error that goes to the points."""
        link, current = self.link, self.link.current
        if not (link.scoped and current.open) and is_tracing():
            return outputs
        if link.observation is not None:
            link.observation.at_head = list(outputs)
            link.observation.sample_dims = sample_dims(link.settings.batch_dims, outputs[0])
        if current.taker is not None:
            joined: list[Tensor] = current.taker.join(self, outputs)
            return joined
        records = current.take()
        if not link.cuts:
            current.target = None
            return outputs
        if in_backward():  # a recomputation: the node of the first pass is the one that counts, and saves nothing
            return outputs
        target = current.take_target()
        if torch.is_grad_enabled():
            self._note_skipped(records, outputs)
        if not self.feeds_the_output and is_output(records, outputs):
            outputs = through_points(records, outputs)
        if not self._broadcasts(link.settings):
            return outputs
        return self.feed(outputs, records, target)

    def feed(self, outputs: list[Tensor], records: list[Record], target: Tensor | None) -> list[Tensor]:
        """Join the outputs and the points that have something to feed; see that there is a matrix."""
        link = self.link
        if any([record.value is not None for record in records]):  # noqa: C419
            return join(self._plan(outputs, records), link, outputs, records, target)
        if records and self.in_force(link.settings) is None and link.settings.feedback.projector is None and link.whole:
            self._columns(link.settings, error_of(link.settings.batch_dims, outputs), outputs[0], records)
        return outputs

    def _broadcasts(self, settings: Settings) -> bool:
        return settings.rule.broadcasts

    def _note_skipped(self, records: list[Record], outputs: list[Tensor]) -> None:
        """Refuse a pass that met no point, and note on the points which of them ran without gradients."""
        if not records and any(output.requires_grad for output in outputs):
            raise PointError(
                "the forward pass reached the head without passing any of its feedback points: "
                f"{self._names()}. Place them in the model's forward, below the head, or attach with other points."
            )
        for record in records:
            if record.point.skipped is record.graded:  # rarely: setting an attribute of a module is slow
                record.point.skipped = not record.graded

    def _plan(self, outputs: list[Tensor], records: list[Record]) -> Planned:
        """As `planned`; kept for the next pass."""
        known = None if torch.compiler.is_compiling() else self._known
        if known is not None and known.holds(self.link, self._buffers["feedback_matrix"], outputs, records):
            return known.made
        made = self.planned(outputs, records)
        if not torch.compiler.is_compiling():
            matrix = self._buffers["feedback_matrix"]  # drawn by now
            once = has_rows(records) or not has_numbers(outputs[0])
            self._known = None if once else Known(self.link, matrix, outputs, records, made)
        return made

    def planned(self, outputs: list[Tensor], records: list[Record]) -> Planned:
        """What the node needs of a pass; the feedback is drawn if there is none."""
        settings = self.link.settings
        error = error_of(settings.batch_dims, outputs)
        ways = None if torch.compiler.is_compiling() else around(self.link, settings, outputs, records)
        columns = self._columns(settings, error, outputs[0], records if ways is None else whole(records, ways))
        rule = settings.rule
        if rule.local:
            refuse_several_outputs(rule.name, len(error.widths))
        learns = rule.learns and rule.every > 0 and not self.link.still  # type: ignore[attr-defined]
        handle = self.learner.handle if (learns or rule.local) and self.learner is not None else None
        matrix = self.in_force(settings)
        if not has_numbers(outputs[0]) and settings.feedback.projector is None:
            matrix = outputs[0].new_empty(error.width, columns.total)  # what was drawn or loaded stays as it is
        made = planned(settings, error, columns, matrix, Taught(handle, learns), outputs, records, ways)
        if made.plan.must_know_scale:
            refuse_half_precision(rule.name, outputs[0])
        return made

    def _columns(self, settings: Settings, error: Error, output: Tensor, records: list[Record]) -> Columns:
        """Where the points stand in the feedback, which is drawn if there is none."""
        columns = columns_of(settings, output, records, self.points)
        if has_numbers(output):
            self.ready(settings, error.width, columns, output)
        matrix = self.in_force(settings)
        if not settings.own_columns and self.feedback_matrix is not None:
            drawn = self.feedback_matrix.shape[1]
            columns = columns._replace(total=drawn, largest=drawn)
        if matrix is not None:
            check_columns(matrix, records, columns)
        return columns

    def load_learner(self, rule: Rule, state: dict[str, Any] | None) -> None:
        super().load_learner(rule, state)
        self._known = None

    def _names(self) -> str:
        return ", ".join(repr(layer.label) for layer in self.points)

    def extra_repr(self) -> str:
        return f"rule={self.link.rule}, points=[{self._names()}], feedback={self.feedback}"


def join(
    made: Planned, link: Link, outputs: list[Tensor], records: Sequence[Record | Fed], target: Tensor | None
) -> list[Tensor]:
    """Join the outputs of a pass and the points that it feeds in one autograd node."""
    plan, matrix, indices, dims, point_dims, in_front, ways = made
    current = None
    if target is None and plan.rule.needs_target:
        if torch.compiler.is_compiling():
            raise missing_target(plan.rule.name)
        current = link.current  # it may yet be told
    values: list[Any] = [record[1] for record in records if record[1] is not None]
    if in_front and not transformed():  # nothing to turn, here and after
        joined = Node.apply(plan, current, matrix, target, *outputs, *indices, *values)
        return [joined] if len(outputs) == 1 else list(joined)
    rows = [batch_first(output, own) for output, own in zip(outputs, dims, strict=True)]
    if ways is not None:
        values = [way.take(value) for way, value in zip(ways, values, strict=True)]
    values = [batch_first(value, own) for value, own in zip(values, point_dims, strict=True)]
    if transformed():
        joined = FunctionalNode.join(plan, matrix, target, *rows, *indices, *values)
    else:
        joined = Node.apply(plan, current, matrix, target, *rows, *indices, *values)
    return [
        found if row is output else found.movedim(tuple(range(len(own))), own)
        for found, row, output, own in zip([joined] if len(outputs) == 1 else joined, rows, outputs, dims, strict=True)
    ]
