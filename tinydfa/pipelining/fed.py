"""What the points of a stage are fed: their columns of the feedback, and the backward pass of a microbatch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tinydfa.feedback.drawn import Feedback
from tinydfa.passes.shapes import batch_first, check_rows, count, leading
from tinydfa.pipelining.points import BatchDims, Cut, Like, Pass, Passed
from tinydfa.points import DFALayer
from tinydfa.signals import Slot, signals

Shape = tuple[str, tuple[int, ...], BatchDims]  # of what passed a point: its name, shape and own batch dimensions


class Columns(NamedTuple):
    """Where in the feedback of the whole model a stage's points read."""

    outputs: int  # c
    largest: int  # D as the scale means it
    total: int  # columns of the whole matrix
    first: int  # the stage's own first column
    batch_dims: tuple[int, ...]  # of the output
    feedback: Feedback  # how it is used; what learns has its scale in it


class Trained(NamedTuple):
    """A point that gets a signal."""

    place: int  # among all of a pass
    dims: tuple[int, ...]  # its batch dimensions
    slot: Slot


Signal = Callable[[Trained, Tensor], Tensor]  # of a point and what passed it, batch dimensions in front


class Held(NamedTuple):
    """A microbatch between its F and its W."""

    passed: Pass
    first: Cut  # what looked at its forward pass
    error: Tensor | None  # at the output; None below the last stage, and where it is used up
    encoded: Callable[[], Tensor] | Tensor  # or what waits for it


def shapes_of(points: Sequence[Passed]) -> list[Shape]:
    """What passed the points of a stage, without the numbers."""
    return [(point.name, tuple(point.like.shape), point.batch_dims) for point in points]


def sizes(shapes: Sequence[Shape], batch_dims: tuple[int, ...]) -> list[tuple[tuple[int, ...], int, int]]:
    """Batch dimensions, number of rows and width of every point."""
    found = []
    for _, shape, own in shapes:
        dims = leading(batch_dims if own is None else own, len(shape))
        found.append((dims, *count(shape, dims)))
    return found


def trained(points: Sequence[Passed], columns: Columns, samples: int) -> list[Trained]:
    """The points that ask for a gradient, and what each reads of the projection of so many samples."""
    found: list[Trained] = []
    feedback = columns.feedback
    start = 0 if feedback.projector is None else columns.first
    for place, (point, (dims, rows, width)) in enumerate(
        zip(points, sizes(shapes_of(points), columns.batch_dims), strict=True)
    ):
        if point.like.graded:
            if rows % max(samples, 1):
                check_rows(DFALayer(point.name), rows, samples, None)  # says what to do
            factor = feedback.scale(columns.outputs, columns.largest, width)
            slot = slot_of(point.name, point.like, dims, start, width, factor)
            found.append(Trained(place, dims, slot._replace(twin=twin(slot, found))))
        if not feedback.shared:
            start += width
    return found


def slot_of(name: str, like: Like, dims: tuple[int, ...], start: int, width: int, factor: float) -> Slot:
    """What a point reads, its gradient with the batch dimensions in front."""
    others = [number for number in range(len(like.shape)) if number not in dims]
    shape = torch.Size([like.shape[number] for number in (*dims, *others)])
    return Slot(name, start, width, factor, 0, like.dtype, like.device, shape=shape, leaf=like.leaf)


def twin(slot: Slot, before: Sequence[Trained]) -> int:
    """The first slot that reads the same, or its own number."""
    for number, (_, _, other) in enumerate(before):
        if slot[1:4] == other[1:4] and (slot.dtype, slot.device) == (other.dtype, other.device):
            return number
    return len(before)


def signals_for(found: Sequence[Trained], encoded: Tensor, matrix: object, columns: Columns) -> list[Tensor]:
    """The signal of every trained point, batch dimensions in front.

    Args:
        found: The points.
        encoded: s, ``[B, c]``.
        matrix: The stage's own columns of F, or the projector.
        columns: Where they stand in the whole.
    """
    if not found:
        return []
    slots = [point.slot for point in found]
    factors = {slot.factor for slot in slots}
    scale = factors.pop() if len(factors) == 1 else 1.0
    slots = [slot._replace(factor=slot.factor / scale) for slot in slots]
    width = matrix.shape[1] if isinstance(matrix, Tensor) else columns.total
    return signals(encoded, matrix, slots, columns=width, scale=scale)


def shown(found: Sequence[Trained], fed: Sequence[Tensor], show: Callable[[str, Tensor], None] | None) -> Signal:
    """What gives the points their signals; `show`, if there is one, is called with the name and rows of each."""
    ready = {point.place: signal for point, signal in zip(found, fed, strict=True)}

    def signal(point: Trained, value: Tensor) -> Tensor:
        if show is not None:
            show(point.slot.name, in_rows(point, value))
        return ready[point.place]

    return signal


def in_rows(point: Trained, value: Tensor) -> Tensor:
    """What passed a point, ``[rows, d]``."""
    return value.reshape(-1, point.slot.width)


def backward(
    points: Sequence[Passed],
    found: Sequence[Trained],
    fed: Sequence[Tensor],
    output: Tensor | None,
    error: Tensor | None,
) -> None:
    """Add the gradients of one microbatch to those of the stage's weights.

    Args:
        points: What passed.
        found: Those that are trained.
        fed: Their signals.
        output: Where the error was taken, with its graph; None below the last stage.
        error: e there, in the output's shape.
    """
    roots: list[Tensor] = []
    gradients: list[Tensor] = []
    if output is not None and output.requires_grad:
        assert error is not None
        roots, gradients = [output], [error]
    for (place, dims, _), signal in zip(found, fed, strict=True):
        value = points[place].value
        assert value is not None
        roots.append(batch_first(value, dims))
        gradients.append(signal)
    if roots:
        torch.autograd.backward(roots, gradients)
