"""Which rows and columns of the projection belong to which feedback point.

The output's batch dimensions, flattened, are the B samples; what remains is its width c. A point's batch dimensions,
flattened, are its rows: as many as there are samples, or k times as many (nodes, fields, tokens of a sample), or any
number when an index says which sample each row belongs to. What remains is its width d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tinydfa.errors import PointError, ShapeError
from tinydfa.points import DFALayer, Record

if TYPE_CHECKING:
    from tinydfa.dfa import DFA


@dataclass(frozen=True)
class Layout:
    """The sizes of one forward pass; the lists run over the points that a gradient is asked for."""

    output_dims: tuple[int, ...]
    samples: int  # B
    outputs: int  # c
    largest: int  # D, over all points of the head
    columns: int  # of the feedback matrix: D when the points share it, else the sum of their widths
    names: list[str]
    point_dims: list[tuple[int, ...]]
    widths: list[int]
    starts: list[int]  # first column of each point


def measure(head: DFA, output: Tensor, records: list[Record]) -> Layout:
    """The layout of a forward pass that ended in `output`; it also notes every point's width on the point.

    A point counts towards D whether it is trained or frozen, so that unfreezing a layer changes no scale.

    Raises:
        ShapeError: A point's rows are not a whole number per sample, or its index has another length.
        PointError: A point without a width although it must be given columns of its own.
    """
    dims = sample_dims(head.batch_dims, output)
    output_dims = leading(dims, output.dim())
    if 1 < output.dim() == len(output_dims):
        raise ShapeError(
            f"batch_dims {tuple(dims)} leave no width of an output of shape {tuple(output.shape)}: its error would be "
            "one number a sample. Leave the output's last dimension out; a point may have batch_dims of its own: "
            "DFALayer(batch_dims=(0, 1)), or attach(..., batch_dims={name: (0, 1)})."
        )
    samples, outputs = count(output.shape, output_dims)
    point_dims, widths, fed = [], [], []
    for record in records:
        point, shape = record.point, record.shape
        own = leading(dims if point.batch_dims is None else point.batch_dims, len(shape))
        rows, point.width = count(shape, own)
        if record.value is not None:
            check_rows(point, rows, samples, record.rows_of)
            fed.append(point)
            point_dims.append(own)
            widths.append(point.width)
    largest = max([point.width or 0 for point in head.points])
    columns, starts = (largest, [0] * len(fed)) if head.feedback.shared else own_columns(head, fed)
    if head.feedback.shared and head.feedback_matrix is not None:
        largest = head.feedback_matrix.shape[1]
    names = [point.label for point in fed]
    return Layout(output_dims, samples, outputs, largest, columns, names, point_dims, widths, starts)


def sample_dims(batch_dims: tuple[int, ...] | None, output: Tensor) -> tuple[int, ...]:
    """Dimensions that count samples, of the output and of every point that names none: None is all but the last."""
    return batch_dims if batch_dims is not None else tuple(range(max(output.dim() - 1, 1)))


def own_columns(head: DFA, fed: list[DFALayer]) -> tuple[int, list[int]]:
    """Columns side by side in the order of the head's points, when each has its own."""
    starts: dict[DFALayer, int] = {}
    columns = 0
    for point in head.points:
        if point.width is None:
            raise PointError(
                f"feedback point {point.label!r} did not run in the first training pass, so its own columns of the "
                "feedback cannot be placed. Run all points once, or use Feedback(shared=True)."
            )
        starts[point] = columns
        columns += point.width
    return columns, [starts[point] for point in fed]


def leading(dims: Sequence[int], total: int) -> tuple[int, ...]:
    """`dims` of a tensor with `total` dimensions, as non-negative numbers in order."""
    outside = [dim for dim in dims if not -total <= dim < total]
    if outside:
        raise ShapeError(
            f"batch_dims {tuple(dims)} do not exist in a tensor of {total} dimensions. Give the point its own "
            "batch_dims: DFALayer(batch_dims=(0,)), or attach(..., batch_dims={name: (0,)})."
        )
    return tuple(sorted(dim % total for dim in dims))


def count(shape: Sequence[int], dims: Sequence[int]) -> tuple[int, int]:
    """Numbers of rows and of features of a tensor whose batch dimensions are `dims`."""
    rows = math.prod([size for dim, size in enumerate(shape) if dim in dims])
    return rows, math.prod([size for dim, size in enumerate(shape) if dim not in dims])


def check_rows(point: DFALayer, rows: int, samples: int, index: Tensor | None) -> None:
    """Refuse a point whose rows cannot be told apart by sample."""
    if index is not None:
        if index.dim() != 1 or index.shape[0] != rows:
            raise ShapeError(
                f"feedback point {point.label!r} has {rows} rows, but the index that says which sample each belongs "
                f"to has shape {tuple(index.shape)}. Pass one int64 entry for every row."
            )
    elif rows != samples and (rows < samples or rows % max(samples, 1) != 0):
        raise ShapeError(
            f"feedback point {point.label!r} has {rows} rows for {samples} rows of the output, which is no whole "
            "number of rows per sample. Give the right batch_dims, or say which sample each row belongs to: "
            "DFALayer()(x, index), or `with attachment.samples(index)` around the call of the model."
        )


def batch_first(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`tensor` with its batch dimensions in front; itself when they are there already."""
    front = tuple(range(len(dims)))
    return tensor if dims == front else torch.movedim(tensor, dims, front)
