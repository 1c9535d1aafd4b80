"""Which rows and columns of the projection belong to which feedback point.

The output's batch dimensions, flattened, are the B samples; what remains is its width c. A point's batch dimensions,
flattened, are its rows: as many as there are samples, or k times as many (nodes, fields, tokens of a sample), or any
number when an index says which sample each row belongs to. What remains is its width d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tinydfa.errors import PointError, ShapeError
from tinydfa.passes.forward_pass import Point, Record, Rows, Settings
from tinydfa.signals import Slot, are_rows


class Error(NamedTuple):
    """The error of one pass, taken at one output or several, side by side."""

    dims: tuple[tuple[int, ...], ...]  # the batch dimensions of each output
    samples: int  # B
    widths: tuple[int, ...]  # of each output; c is their sum

    @property
    def width(self) -> int:
        return sum(self.widths)


def error_of(batch_dims: tuple[int, ...] | None, outputs: Sequence[Tensor]) -> Error:
    """What the error at `outputs` looks like.

    Raises:
        ShapeError: batch_dims that do not exist, leave no width, or cannot be guessed; outputs of different batches.
    """
    dims, counts, widths = [], [], []
    for output in outputs:
        own = leading(sample_dims(batch_dims, output), output.dim())
        if 1 < output.dim() == len(own):
            raise ShapeError(
                f"batch_dims {own} leave no width of an output of shape {tuple(output.shape)}: its error would be "
                "one number a sample. Leave the output's last dimension out; a point may have batch_dims of its own: "
                "DFALayer(batch_dims=(0, 1)), or attach(..., batch_dims={name: (0, 1)})."
            )
        samples, width = count(output.shape, own)
        dims.append(own)
        counts.append(samples)
        widths.append(width)
    if len(set(counts)) > 1:
        raise ShapeError(
            f"the error is taken at outputs of {', '.join(map(str, counts))} samples each, which cannot stand side by "
            "side. Take it at outputs of the same batch dimensions, or name batch_dims."
        )
    return Error(tuple(dims), counts[0], tuple(widths))


def sample_dims(batch_dims: tuple[int, ...] | None, output: Tensor) -> tuple[int, ...]:
    """Dimensions that count samples, of the output and of every point that names none: None is all but the last.

    Raises:
        ShapeError: None for an output of four dimensions or more, whose last one is rarely its width.
    """
    if batch_dims is not None:
        return batch_dims
    if output.dim() > 3:
        others = (0, *range(2, output.dim()))
        raise ShapeError(
            f"an output of shape {tuple(output.shape)} does not say which of its dimensions count samples. Pass "
            f"batch_dims={others} where the classes are in dimension 1, as in a picture, or "
            f"batch_dims={tuple(range(output.dim() - 1))} where they are in the last."
        )
    return tuple(range(max(output.dim() - 1, 1)))


def point_dims(batch_dims: tuple[int, ...] | None, record: Record, output: Tensor) -> tuple[int, ...]:
    """The batch dimensions of a point in this pass."""
    own = record.point.batch_dims
    if own is None and record.rows is not None and record.rows.packed:
        return (0,)
    return leading(sample_dims(batch_dims, output) if own is None else own, len(record.shape))


def measure(
    batch_dims: tuple[int, ...] | None, output: Tensor, records: Sequence[Record]
) -> list[tuple[tuple[int, ...], int, int]]:
    """Batch dimensions, number of rows and width of every point that ran."""
    found = []
    for record in records:
        dims = point_dims(batch_dims, record, output)
        rows, width = count(record.shape, dims)
        found.append((dims, rows, width))
    return found


def slots_for(
    settings: Settings,
    fed: Sequence[tuple[Record, int]],
    starts: dict[Point, int] | None,
    outputs: int,
    largest: int,
    which: Sequence[tuple[int, int]],
) -> list[Slot]:
    """One slot for each point that is fed.

    Args:
        settings: Those in force.
        fed: Records with the width of their point.
        starts: First column of each point; None: they share columns.
        outputs: c.
        largest: D as the scale means it.
        which: For each point the numbers of its sample and group index, -1 for none.
    """
    slots: list[Slot] = []
    keys: list[tuple[object, ...]] = []
    for (record, width), (sample, group) in zip(fed, which, strict=True):
        value = record.value
        assert value is not None
        start = 0 if starts is None else starts[record.point]
        factor = 1.0 if settings.rule.learns else settings.feedback.scale(outputs, largest, width)
        key = (start, width, factor, value.dtype, value.device)
        twin = keys.index(key) if key in keys else len(keys)
        keys.append(key)
        slots.append(Slot(record.point.label, start, width, factor, twin, value.dtype, value.device, sample, group))
    return slots


def own_columns(points: Sequence[Point]) -> tuple[dict[Point, int], int]:
    """First columns of the head's points, side by side in their order, and how many there are in all.

    A point that is the output itself is fed nothing, and has none.

    Raises:
        PointError: A point has no width yet.
    """
    starts: dict[Point, int] = {}
    columns = 0
    for point in points:
        if point.width is None:
            if point.is_output:
                continue
            raise PointError(
                f"feedback point {point.label!r} did not run in the first training pass, so its own columns of the "
                "feedback cannot be placed. Run all points once, or leave it out of points=[...]."
            )
        starts[point] = columns
        columns += point.width
    return starts, columns


def leading(dims: Sequence[int], total: int) -> tuple[int, ...]:
    """`dims` of a tensor with `total` dimensions, as non-negative numbers in order."""
    outside = [dim for dim in dims if not -total <= dim < total]
    if outside:
        raise ShapeError(
            f"batch_dims {tuple(dims)} do not exist in a tensor of {total} dimensions. Give the point its own "
            "batch_dims: DFALayer(batch_dims=(0,)), or attach(..., batch_dims={name: (0,)})."
        )
    return tuple(sorted([dim % total for dim in dims]))


def count(shape: Sequence[int], dims: Sequence[int]) -> tuple[int, int]:
    """Numbers of rows and of features of a tensor whose batch dimensions are `dims`."""
    rows = math.prod([size for dim, size in enumerate(shape) if dim in dims])
    return rows, math.prod([size for dim, size in enumerate(shape) if dim not in dims])


def check_rows(point: Point, rows: int, samples: int, own: Rows | None) -> None:
    """Refuse a point whose rows cannot be told apart by sample."""
    index = None if own is None else own.sample
    if own is not None and own.samples not in (None, samples):
        raise ShapeError(
            f"feedback point {point.label!r} is a packed sequence of {own.samples} samples, and the output has "
            f"{samples} rows, one a step it seems: which of them belongs to each of the {rows} packed rows cannot be "
            "told. Say it: `with attachment.samples({" + repr(point.label) + ": index})` around the call of the model."
        )
    if index is not None and index.dtype is not torch.bool:
        if index.dim() != 1 or index.shape[0] != rows:
            raise ShapeError(
                f"feedback point {point.label!r} has {rows} rows, but the index that says which sample each belongs "
                f"to has shape {tuple(index.shape)}. Pass one int64 entry for every row."
            )
        return
    if index is not None and index.numel() != rows:
        raise ShapeError(
            f"feedback point {point.label!r} has {rows} rows, but the mask of its rows has shape {tuple(index.shape)}. "
            "Pass one bool for every row."
        )
    if own is not None and own.group is not None:
        return
    if rows != samples and (rows < samples or rows % max(samples, 1) != 0):
        raise ShapeError(
            f"feedback point {point.label!r} has {rows} rows for {samples} rows of the output, which is no whole "
            "number of rows per sample. Give the right batch_dims, or say which sample each row belongs to: "
            "DFALayer()(x, index), or `with attachment.samples(index)` around the call of the model."
        )


def sample_index(own: Rows, rows: int, samples: int) -> Tensor | None:
    """The sample of each row: what was given, or, of a mask, the samples in order with -1 where it is False."""
    given = own.sample
    if given is None or given.dtype is not torch.bool:
        return given
    each = rows // max(samples, 1) if own.group is None else 1
    in_order = torch.arange(rows, device=given.device) // max(each, 1)
    return torch.where(given.reshape(-1), in_order, -1)


def index_tensors(
    fed: Sequence[Record], rows: Sequence[int], samples: int
) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """The different index tensors of some points, and which of them are each point's sample and group index."""
    found: list[Tensor] = []

    def number(tensor: Tensor | None) -> int:
        if tensor is None:
            return -1
        for place, other in enumerate(found):
            if other is tensor:
                return place
        found.append(tensor)
        return len(found) - 1

    which = []
    for record, count in zip(fed, rows, strict=True):
        own = record.rows
        which.append((-1, -1) if own is None else (number(sample_index(own, count, samples)), number(own.group)))
    return found, which


def batch_first(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`tensor` with its batch dimensions in front; itself when they are there already."""
    front = tuple(range(len(dims)))
    return tensor if dims == front else torch.movedim(tensor, dims, front)


def check_target(rule: str, target: Tensor, samples: int, outputs: int) -> None:
    """Refuse a target that is neither a class id for every sample nor a row for each."""
    if are_rows(target, samples, outputs) and target.numel() != samples * outputs:
        raise ShapeError(
            f"{rule} was given a target of shape {tuple(target.shape)} for an output of {samples} samples and "
            f"{outputs} classes. Pass {samples} class ids, or rows of {outputs} numbers."
        )
