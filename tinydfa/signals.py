"""What reaches a hidden layer: error and feedback in, one signal for every feedback point out. Functions of tensors.

With e the gradient of the loss at the output, s what the rule makes of it (`Broadcast.encode`) and F the feedback:

    P = s @ F                                                one product for all points, [B, D]
    g = P[:, start : start + d] * factor                     for a point of width d, [B, d]
    a point with k rows for a sample: its sample's row of g, divided by sqrt(k)
    a point with a row for a group of k samples: the sum of their rows of g, divided by sqrt(k)

`start` is 0 where the points share one matrix, and the sum of the widths before it where each has columns of its own.
Nothing passes through the layers in between, so a hidden update does not depend on the weights above it, except
through the error itself.

Letters: B samples (all batch dimensions flattened), c width of the error, D columns of the feedback, d width of a
point. Source: arXiv 2006.12878, eq. 4, and its code release for shared columns and for repeated rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Slot(NamedTuple):
    """One feedback point in one pass: which columns it reads, and what its gradient has to be like."""

    name: str
    start: int
    width: int
    factor: float  # beyond the scale that all points have in common
    twin: int  # the first slot with the same columns, factor, type and device: they share one part of the projection
    dtype: torch.dtype
    device: torch.device
    sample: int = -1  # which of the `indices` says the sample of each of its rows; -1: they are in order
    group: int = -1  # which says the group of each sample; the rows are then those of groups
    shape: Any = None  # of the gradient; None until the node knows it, where a compiler traces
    leaf: bool = False  # a leaf keeps its gradient, which then must not share memory


def signals(
    encoded: Tensor,
    feedback: Any,
    slots: Sequence[Slot],
    *,
    columns: int,
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
    indices: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Carry an encoded error to the feedback points.

    Args:
        encoded: s, ``[B, c]``.
        feedback: F, ``[c, D]``, or a projector: a callable of ``[B, c]`` and the number of columns.
        slots: The points.
        columns: D.
        scale: Factor on every signal. It is applied to s, the small side of the product; behind a projector, which
            may not carry it.
        dtype: Type of the product; None: the widest of the points' types.
        indices: int64 tensors that the slots refer to.

    Returns:
        For every slot its signal, in the slot's shape, type and place.

    Example:
        >>> error = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> feedback = torch.tensor([[1.0, -1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
        >>> where = torch.float32, torch.device("cpu")
        >>> slots = Slot("narrow", 0, 2, 1.0, 0, *where, shape=(2, 2)), Slot("wide", 0, 4, 1.0, 1, *where, shape=(2, 4))
        >>> [signal.tolist() for signal in signals(error, feedback, slots, columns=4, scale=0.5)]
        [[[0.5, -0.5], [0.0, 1.0]], [[0.5, -0.5, 0.5, 0.0], [0.0, 1.0, 1.0, 1.0]]]
    """
    projection = project(encoded, feedback, columns, scale, dtype or widest(slots))
    parts: list[Tensor] = []
    found = []
    for number, slot in enumerate(slots):
        part = parts[slot.twin] if slot.twin < number else columns_of(projection, slot)
        parts.append(part)
        if slot.sample >= 0 or slot.group >= 0 or part.shape != slot.shape:
            part = to_rows(part, slot, indices)
        found.append(part.clone() if slot.leaf else part)
    return found


def project(encoded: Tensor, feedback: Any, columns: int, scale: float, dtype: torch.dtype) -> Tensor:
    """``scale * s @ F``, ``[B, D]``, by the matrix or by the projector in its place."""
    if isinstance(feedback, Tensor):
        small = encoded if scale == 1.0 else encoded * scale
        if small.dtype is not dtype or small.device != feedback.device:
            small = small.to(feedback.device, dtype)
        return small @ (feedback if feedback.dtype is dtype else feedback.to(dtype))
    with torch.no_grad():
        projected: Tensor = feedback(encoded.detach(), columns) * scale
    return projected


def columns_of(projection: Tensor, slot: Slot) -> Tensor:
    """What a slot reads of the projection, ``[B, d]``."""
    part = projection
    if slot.width != projection.shape[1]:
        part = projection[:, slot.start : slot.start + slot.width]
    return cast(part if slot.factor == 1.0 else part * slot.factor, slot.dtype, slot.device)


def to_rows(part: Tensor, slot: Slot, indices: Sequence[Tensor]) -> Tensor:
    """A signal for every sample ``[B, d]``, made one for every row of the point, in its shape."""
    if slot.group >= 0:
        part = gather(part, indices[slot.group])
    rows = rows_in(slot.shape, slot.width)
    return spread(part, rows, indices[slot.sample] if slot.sample >= 0 else None).reshape(slot.shape)


def rows_in(shape: Sequence[int], width: int) -> int:
    """How many rows of `width` numbers a shape holds."""
    count = 1
    for size in shape:
        count = count * size
    return count // max(width, 1)


def spread(signal: Tensor, rows: int, sample: Tensor | None = None) -> Tensor:
    """Repeat every sample's row over its k rows, divided by sqrt(k): ``[B, d]`` to ``[rows, d]``.

    Args:
        signal: ``[B, d]``.
        rows: How many are asked for; without `sample` a multiple of B.
        sample: The sample of each row, ``[rows]`` int64. A negative one leaves the row out: it gets zeros and does
            not count among its sample's rows.

    Example:
        >>> spread(torch.tensor([[6.0], [2.0]]), 5, torch.tensor([0, 0, 0, 0, -1])).flatten().tolist()
        [3.0, 3.0, 3.0, 3.0, 0.0]
    """
    samples = signal.shape[0]
    if sample is not None:
        there = (sample >= 0).to(signal.dtype)
        index = sample.clamp_min(0)
        times = signal.new_zeros(samples).index_add_(0, index, there)
        return (signal * times.clamp_min(1).rsqrt()[:, None])[index] * there[:, None]
    if rows == samples:
        return signal
    times_each = rows // samples
    return (signal * times_each**-0.5).repeat_interleave(times_each, dim=0)


def gather(signal: Tensor, group: Tensor) -> Tensor:
    """Add up the rows of every group of samples, divided by sqrt(k) for k of them: ``[B, d]``, row g of group g.

    Args:
        signal: ``[B, d]``.
        group: The group of each sample, ``[B]`` int64 below B; a negative one leaves it out.

    Example:
        >>> gather(torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([0, -1, 1])).flatten().tolist()
        [1.0, 5.0, 0.0]
    """
    there = (group >= 0).to(signal.dtype)
    index = group.clamp_min(0)
    times = torch.zeros_like(there).index_add_(0, index, there)
    total = torch.zeros_like(signal).index_add_(0, index, signal * there[:, None])
    return total * times.clamp_min(1).rsqrt()[:, None]


def ternary(error: Tensor, threshold: float | None = None) -> Tensor:
    """The sign of the entries larger than `threshold` (None: than the mean size), 0 for the others."""
    size = error.abs()
    return torch.where(size > (size.mean() if threshold is None else threshold), error.sign(), 0.0)


def one_hot_rows(target: Tensor, like: Tensor) -> Tensor:
    """Targets as rows ``[B, c]``: class ids become one-hot rows, negative ids (no label) rows of zeros.

    Args:
        target: Class ids, B of them, or B rows of c numbers.
        like: ``[B, c]``, for the shape, type and device of the result.
    """
    samples, outputs = like.shape
    if are_rows(target, samples, outputs):
        return target.reshape(samples, outputs).to(like)
    ids = target.reshape(-1, 1).to(like.device)
    return torch.zeros_like(like).scatter_(1, ids.clamp(0, outputs - 1), 1.0) * (ids >= 0)


def are_rows(target: Tensor, samples: int, outputs: int) -> bool:
    """Whether a target is taken as rows ``[B, c]`` and not as class ids."""
    return target.is_floating_point() or target.numel() != samples or outputs == 1


def widest(slots: Sequence[Slot]) -> torch.dtype:
    """The type that holds those of all slots."""
    dtype = slots[0].dtype
    for slot in slots:
        dtype = torch.promote_types(dtype, slot.dtype)
    return dtype


def cast(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`tensor` itself where it has the type and place already; asking first is cheaper than `Tensor.to`."""
    return tensor if tensor.dtype is dtype and tensor.device == device else tensor.to(device=device, dtype=dtype)


def autocast_type(output: Tensor) -> torch.dtype | None:
    """bfloat16 under its autocast, where the projection is a product like any other, even if a point is float32.

    Not float16, whose range may be too small for what comes of an error times a loss scale.
    """
    kind = output.device.type
    bf16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.bfloat16
    return torch.bfloat16 if bf16 else None
