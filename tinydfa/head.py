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

from tinydfa.checks import missing_target, refuse_half_precision
from tinydfa.errors import PointError, ShapeError
from tinydfa.feedback import Feedback
from tinydfa.learner import Learner
from tinydfa.node import Node, Plan, fitted
from tinydfa.passes import (
    BatchDims,
    Known,
    Link,
    Record,
    Settings,
    has_rows,
    in_backward,
    is_output,
    through_points,
)
from tinydfa.points import DFALayer
from tinydfa.rules import Rule
from tinydfa.shapes import (
    Error,
    batch_first,
    check_rows,
    error_of,
    index_tensors,
    measure,
    own_columns,
    sample_dims,
    slots_for,
)
from tinydfa.signals import autocast_type, widest
from tinydfa.tracing import is_tracing

Dims = tuple[Error, list[tuple[int, ...]], bool]  # of the outputs; of the points; whether all stand in front already

REDRAW = "set feedback_matrix = None on the head (attachment.head)"


class Head(nn.Module):
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

    feedback_matrix: Tensor | None
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
        self.learner: Learner | None = None
        self.size: tuple[int, int] | None = None  # c and D, known after the first pass
        self._known: Known | None = None  # how the pass before was planned
        self.register_buffer("feedback_matrix", None)
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
        return self.take([input])[0]

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
        training = torch.is_grad_enabled()
        if not link.cuts:
            current.target = None
            return outputs
        broadcasts = self._broadcasts(link.settings)
        if in_backward():  # recomputed: this node is only there to save what the first one saved
            return self._join(link.settings, outputs, None, [], []) if training and broadcasts else outputs
        target = current.take_target()
        if training:
            self._note_skipped(records, outputs)
        if not self.feeds_the_output and is_output(records, outputs):
            outputs = through_points(records, outputs)
        if not broadcasts:
            return outputs
        return self.join_all(outputs, target, records, [record for record in records if record.value is not None])

    def join_all(
        self, outputs: list[Tensor], target: Tensor | None, records: list[Record], fed: list[Record]
    ) -> list[Tensor]:
        """Join the outputs and all points that are `fed`, if there are any, and see that there is a matrix."""
        link = self.link
        if fed:
            return self._join(link.settings, outputs, target, records, fed)
        if records and self.feedback_matrix is None and link.settings.feedback.projector is None:
            error = error_of(link.settings.batch_dims, outputs)
            self._columns(link.settings, error, outputs[0], records)
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

    def _join(
        self,
        settings: Settings,
        outputs: list[Tensor],
        target: Tensor | None,
        records: list[Record],
        fed: list[Record],
    ) -> list[Tensor]:
        """Join the outputs and the points of this pass that are `fed` in one autograd node."""
        plan, dims, matrix, indices = self._plan(settings, outputs, records, fed)
        if plan.must_know_scale:
            refuse_half_precision(settings.rule.name, outputs[0])
        waits = target is None and settings.rule.needs_target
        if waits and torch.compiler.is_compiling():
            raise missing_target(settings.rule.name)
        error, points, in_front = dims
        current = self.link.current if waits else None
        if in_front:  # nothing to turn, here and after
            joined = Node.apply(plan, current, matrix, target, *outputs, *indices, *[record.value for record in fed])
            return [joined] if len(outputs) == 1 else list(joined)
        rows = [batch_first(output, own) for output, own in zip(outputs, error.dims, strict=True)]
        values = [batch_first(record.value, own) for record, own in zip(fed, points, strict=True)]  # type: ignore[arg-type]
        joined = Node.apply(plan, current, matrix, target, *rows, *indices, *values)
        return [
            found if row is output else found.movedim(tuple(range(len(own))), own)
            for found, row, output, own in zip(
                [joined] if len(outputs) == 1 else joined, rows, outputs, error.dims, strict=True
            )
        ]

    def _plan(
        self, settings: Settings, outputs: list[Tensor], records: list[Record], fed: list[Record]
    ) -> tuple[Plan, Dims, Tensor | None, list[Tensor]]:
        """What the node needs of this pass; what was found for the pass before, where nothing it depends on changed."""
        dtype = autocast_type(outputs[0])
        if torch.compiler.is_compiling():
            return self._made(settings, outputs, records, fed, dtype)
        known = self._known
        if known is None or not known.holds(settings, self.feedback_matrix, dtype, self.link.still, outputs, records):
            made = self._made(settings, outputs, records, fed, dtype)
            known = Known(settings, self.feedback_matrix, dtype, self.link.still, outputs, records, made)
            self._known = known if not has_rows(fed) else None
        return known.made

    def _made(
        self,
        settings: Settings,
        outputs: list[Tensor],
        records: list[Record],
        fed: list[Record],
        dtype: torch.dtype | None,
    ) -> tuple[Plan, Dims, Tensor | None, list[Tensor]]:
        error = error_of(settings.batch_dims, outputs)
        sizes, starts, columns, largest = self._columns(settings, error, outputs[0], records)
        of_fed = [size for size, record in zip(sizes, records, strict=True) if record.value is not None]
        for record, (_, rows, _) in zip(fed, of_fed, strict=True):
            check_rows(record.point, rows, error.samples, record.rows)
        indices, which = index_tensors(fed, [rows for _, rows, _ in of_fed], error.samples)
        widths = [(record, width) for record, (_, _, width) in zip(fed, of_fed, strict=True)]
        slots = slots_for(settings, widths, starts, error.width, largest, which)
        dims = [own for own, _, _ in of_fed]
        if not torch.compiler.is_compiling():
            slots = list(fitted(slots, [batch_first(r.value, own) for r, own in zip(fed, dims, strict=True)]))  # type: ignore[arg-type]
        matrix = self._matrix_for(settings)
        plan = self._plan_of(settings, error, columns, slots, dtype, len(indices))
        in_front = all([own == tuple(range(len(own))) for own in [*error.dims, *dims]])  # noqa: C419
        return plan, (error, dims, in_front), matrix, indices

    def _plan_of(
        self, settings: Settings, error: Error, columns: int, slots: list[Any], dtype: torch.dtype | None, indices: int
    ) -> Plan:
        factors = {slot.factor for slot in slots}
        scale = factors.pop() if len(factors) == 1 else 1.0
        feedback = settings.feedback
        return Plan(
            rule=settings.rule,
            widths=error.widths,
            columns=columns,
            slots=tuple([slot._replace(factor=slot.factor / scale) for slot in slots]),
            scale=scale,
            error_sum=feedback.error_sum,
            loss_scale=settings.loss_scale,
            must_know_scale=settings.must_know_scale,
            check_finite=feedback.check_finite,
            names=", ".join([slot.name for slot in slots]),
            dtype=dtype or (widest(slots) if slots else None),
            projector=feedback.projector,
            carries_scale=getattr(feedback.projector, "carries_scale", True),
            learner=self.learner.handle if settings.rule.learns and self.learner and not self.link.still else None,
            indices=indices,
        )

    def _columns(
        self, settings: Settings, error: Error, output: Tensor, records: list[Record]
    ) -> tuple[list[tuple[tuple[int, ...], int, int]], dict[Any, int] | None, int, int]:
        """Sizes of the points, their first columns, how many there are, and D; the matrix is drawn if there is none.

        A point counts towards D whether it is trained or frozen, so that unfreezing a layer changes no scale.
        """
        sizes = measure(settings.batch_dims, output, records)
        for record, (_, _, width) in zip(records, sizes, strict=True):
            if record.point.width != width:
                record.point.width = width
        largest = max([point.width or 0 for point in self.points])
        starts, columns = None, largest
        if settings.own_columns:
            starts, columns = own_columns(self.points)
        self._ready(settings, error.width, columns, starts, output.device)
        if not settings.own_columns and self.feedback_matrix is not None:
            largest = columns = self.feedback_matrix.shape[1]
        self._check_columns(settings, records, sizes, starts)
        return sizes, starts, columns, largest

    def _ready(
        self, settings: Settings, outputs: int, columns: int, starts: dict[Any, int] | None, device: torch.device
    ) -> None:
        """See that there is a matrix, or a learner, of the right size in the right place."""
        if self.size != (outputs, columns):
            self.size = outputs, columns
        if settings.feedback.projector is not None and not settings.rule.learns:
            return
        if settings.device is not None:
            device = torch.device(settings.device)
        if settings.rule.learns:
            self._start_learning(settings, outputs, columns, starts or {}, device)
            return
        matrix = self.feedback_matrix
        if matrix is None:
            matrix = self._draw(settings.feedback, outputs, columns)
            self.feedback_matrix = matrix
        if matrix.shape[0] != outputs:
            raise ShapeError(
                f"the error at the head is {outputs} wide, but the feedback matrix was drawn for "
                f"{matrix.shape[0]}. Keep the output's width and batch_dims, or draw anew: {REDRAW}."
            )
        if matrix.device != device:
            self.feedback_matrix = matrix.to(device)

    def _start_learning(
        self, settings: Settings, outputs: int, columns: int, starts: dict[Any, int], device: torch.device
    ) -> None:
        """Draw the feedback that a rule which learns begins with: that of fixed feedback, its scale taken in."""
        learner = self.learner
        if learner is not None and learner.matrix.device != device:
            self.learner = learner = Learner.of(learner.rule, learner.state_dict(), device)
        if learner is None or learner.rule.name != settings.rule.name:
            largest = max([point.width or 0 for point in self.points])
            matrix = self._draw(settings.feedback, outputs, columns).float()
            places = {point.label: (start, point.width) for point, start in starts.items()}
            if len(places) < len(starts):
                raise PointError(
                    f"{settings.rule} keeps something for every point by its name, and some share one. {self._names()}."
                )
            for start, width in places.values():
                matrix[:, start : start + width] *= settings.feedback.scale(outputs, largest, width)
            self.learner = learner = Learner(settings.rule, matrix.to(device), places)
        learner.rule = settings.rule
        if learner.matrix.shape != (outputs, columns):
            raise ShapeError(
                f"the error at the head is {outputs} wide and the points {columns} together, but the feedback that "
                f"learns is {tuple(learner.matrix.shape)}. Keep the model's widths, or attach anew."
            )

    def load_learner(self, rule: Rule, state: dict[str, Any] | None) -> None:
        """Take over a saved state of feedback that learns, also before the first pass."""
        self.learner = None if state is None else Learner.of(rule, state)
        self._known = None

    def _check_columns(
        self,
        settings: Settings,
        records: list[Record],
        sizes: list[tuple[tuple[int, ...], int, int]],
        starts: dict[Any, int] | None,
    ) -> None:
        matrix = self._matrix_for(settings)
        if matrix is None:
            return
        for record, (_, _, width) in zip(records, sizes, strict=True):
            end = (0 if starts is None else starts[record.point]) + width
            if end > matrix.shape[1]:
                raise ShapeError(
                    f"feedback point {record.point.label!r} reads {end} columns, but the feedback matrix has "
                    f"{matrix.shape[1]}. Its width changed since the first pass: name its batch_dims if a sample's "
                    f"length varies, or draw anew: {REDRAW}."
                )

    def _matrix_for(self, settings: Settings) -> Tensor | None:
        """The matrix of the rule in force; None where a projector stands in its place."""
        if settings.rule.learns:
            return self.learner.matrix if self.learner is not None else None
        return self.feedback_matrix if settings.feedback.projector is None else None

    def _draw(self, feedback: Feedback, outputs: int, columns: int) -> Tensor:
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return feedback.draw(outputs, columns)
        with torch.inference_mode(False):  # evaluated before it trains: the matrix must still serve a backward pass
            return feedback.draw(outputs, columns)

    def _names(self) -> str:
        return ", ".join(repr(layer.label) for layer in self.points)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        """Take over a saved matrix of any size, also before the first pass; weights saved without one keep ours."""
        saved = state_dict.get(prefix + "feedback_matrix")
        if saved is not None and (self.feedback_matrix is None or self.feedback_matrix.shape != saved.shape):
            like = self.feedback_matrix if self.feedback_matrix is not None else saved
            self.feedback_matrix = torch.empty_like(saved, device=like.device)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        if saved is None and prefix + "feedback_matrix" in missing:
            missing.remove(prefix + "feedback_matrix")

    def extra_repr(self) -> str:
        return f"rule={self.link.rule}, points=[{self._names()}], feedback={self.feedback}"
