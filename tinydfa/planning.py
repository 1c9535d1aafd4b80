"""Planning a pass: from the shapes at the output and at the points to what the autograd node is to do.

A plan holds as long as what it was made from (`tinydfa.known`). The feedback itself is readied elsewhere
(`tinydfa.holder`); here it is a number of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tinydfa.errors import ShapeError
from tinydfa.node import Plan, fitted
from tinydfa.passes.forward_pass import Point, Record, Settings
from tinydfa.passes.shapes import Error, batch_first, check_rows, index_tensors, measure, own_columns, slots_for
from tinydfa.signals import Slot, autocast_type, widest
from tinydfa.surroundings.sharded import Way, local, slots_here, told

REDRAW = "set feedback_matrix = None on the head (attachment.head)"


class Taught(NamedTuple):
    """What has learned the feedback."""

    handle: int | None  # of what is shown this pass; None: of nothing
    goes_on: bool  # it may change the feedback


class Columns(NamedTuple):
    """Where the points of a pass stand in the feedback."""

    sizes: list[tuple[tuple[int, ...], int, int]]  # batch dimensions, rows and width of every point that ran
    starts: dict[Point, int] | None  # first columns of all points; None: they share columns
    total: int  # D
    largest: int  # D as the scale means it: the width of the widest point, or of the matrix they share


class Planned(NamedTuple):
    """What joins a pass to its node."""

    plan: Plan
    matrix: Tensor | None
    indices: list[Tensor]
    outputs: tuple[tuple[int, ...], ...]  # the batch dimensions of each output
    points: list[tuple[int, ...]]  # of each point that is fed
    in_front: bool  # all of them stand in front already, and the model is not spread
    ways: list[Way] | None  # of each point that is fed, in a model that is spread over processes


def columns_of(settings: Settings, output: Tensor, records: Sequence[Record], points: Sequence[Point]) -> Columns:
    """Where the points stand, and how many columns there are; notes on the points how wide they are.

    A point counts towards D whether it is trained or frozen, so that unfreezing a layer changes no scale.
    """
    sizes = measure(settings.batch_dims, output, records)
    for record, (_, _, width) in zip(records, sizes, strict=True):
        if record.point.width != width:
            record.point.width = width
    largest = max([point.width or 0 for point in points])
    if not settings.own_columns:
        return Columns(sizes, None, largest, largest)
    starts, count = own_columns(points)
    return Columns(sizes, starts, count, largest)


def check_columns(matrix: Tensor, records: Sequence[Record], columns: Columns) -> None:
    """Refuse a point that reads beyond the matrix."""
    for record, (_, _, width) in zip(records, columns.sizes, strict=True):
        end = (0 if columns.starts is None else columns.starts[record.point]) + width
        if end > matrix.shape[1]:
            raise ShapeError(
                f"feedback point {record.point.label!r} reads {end} columns, but the feedback matrix has "
                f"{matrix.shape[1]}. Its width changed since the first pass: name its batch_dims if a sample's "
                f"length varies, or draw anew: {REDRAW}."
            )


def planned(
    settings: Settings,
    error: Error,
    columns: Columns,
    matrix: Tensor | None,
    learner: Taught,
    outputs: Sequence[Tensor],
    records: Sequence[Record],
    ways: list[Way] | None = None,
) -> Planned:
    """What the node does in a pass.

    Args:
        settings: Those in force.
        error: What the error looks like.
        columns: Where the points stand.
        matrix: F; None where a projector stands in its place.
        learner: What has learned the feedback.
        outputs: Where the error is taken.
        records: Of all points that ran; those with a value are fed.
        ways: What is done to what came into these, in a model that is spread over processes.
    """
    fed = [record for record in records if record.value is not None]
    sizes = [size for size, record in zip(columns.sizes, records, strict=True) if record.value is not None]
    for record, (_, rows, _) in zip(fed, sizes, strict=True):
        check_rows(record.point, rows, error.samples, record.rows)
    dims = [own for own, _, _ in sizes]
    if ways is not None:
        fed = told(fed, ways, dims, error.samples)
    indices, which = index_tensors(fed, [rows for _, rows, _ in sizes], error.samples)
    widths = [(record, width) for record, (_, _, width) in zip(fed, sizes, strict=True)]
    slots = slots_for(settings, widths, columns.starts, error.width, columns.largest, which)
    if ways is not None:
        slots = slots_here(slots, ways, dims)
    if not torch.compiler.is_compiling():
        values = [batch_first(local(r.value), own) for r, own in zip(fed, dims, strict=True)]  # type: ignore[arg-type]
        slots = list(fitted(slots, values))
    plan = plan_of(settings, error, columns.total, slots, autocast_type(outputs[0]), learner, len(indices))
    if learner.handle is None and error.dims == ((0,),) and outputs[0].dim() == 2:
        plan = plan._replace(alike=all_alike(plan, error.samples, matrix))
    in_front = ways is None and all([own == tuple(range(len(own))) for own in [*error.dims, *dims]])  # noqa: C419
    return Planned(plan, matrix, indices, error.dims, dims, in_front, ways)


def plan_of(
    settings: Settings,
    error: Error,
    columns: int,
    slots: Sequence[Slot],
    dtype: torch.dtype | None,
    learner: Taught,
    indices: int,
) -> Plan:
    """The plan itself; the factor that all slots share is applied to the error."""
    factors = {slot.factor for slot in slots}
    scale = factors.pop() if len(factors) == 1 else 1.0
    feedback = settings.feedback
    product = dtype or (widest(slots) if slots else torch.get_default_dtype())
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
        dtype=product,
        projector=feedback.projector,
        carries_scale=getattr(feedback.projector, "carries_scale", True),
        learner=learner.handle,
        learns=learner.goes_on,
        indices=indices,
        alike=False,
    )


def all_alike(plan: Plan, samples: int, matrix: Tensor | None) -> bool:
    """Whether every point receives the product with the whole matrix, as it is."""
    if matrix is None or torch.compiler.is_compiling():
        return False
    for slot in plan.slots:
        whole = slot.twin == 0 and slot.factor == 1.0 and slot.width == plan.columns
        same = slot.dtype is plan.dtype and slot.device == matrix.device and slot.shape == (samples, slot.width)
        if not whole or not same or slot.leaf or slot.sample >= 0 or slot.group >= 0:
            return False
    return True
