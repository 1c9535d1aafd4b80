"""Whether a pass is like the one before it: then it need not be planned again, which costs as much as a small pass.

All that a plan depends on is compared: the settings object in force, the matrix, what the points noted, and the shape,
type and place of the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tinydfa.passes.forward_pass import Fed, Link, Record


class Known:
    """How a pass was planned, and all that this depends on."""

    __slots__ = (
        "all_fed",
        "autocast",
        "device",
        "kind",
        "made",
        "matrix",
        "outputs",
        "points",
        "recording",
        "settings",
        "still",
    )

    def __init__(
        self, link: Link, matrix: Tensor | None, outputs: Sequence[Tensor], records: Sequence[Record], made: Any
    ) -> None:
        self.settings, self.still, self.matrix, self.made = link.settings, link.still, matrix, made
        self.kind = type(link.model)  # fully_shard gives it another
        self.recording = torch.is_grad_enabled()
        self.device = outputs[0].device.type
        self.autocast = autocast(self.device)
        self.outputs = [(output.shape, output.dtype, output.device) for output in outputs]
        self.points = [
            (record.point, record.point.batch_dims, record.shape, type_of(record.value)) for record in records
        ]
        self.all_fed = all([record.value is not None for record in records])  # noqa: C419

    def holds(
        self, link: Link, matrix: Tensor | None, outputs: Sequence[Tensor], records: Sequence[Record | Fed]
    ) -> bool:
        """Whether a pass is like the one that was planned. A point that was told its rows never is."""
        if link.settings is not self.settings or matrix is not self.matrix or link.still != self.still:
            return False
        if type(link.model) is not self.kind:
            return False
        if len(records) != len(self.points) or len(outputs) != len(self.outputs):
            return False
        for record, (point, batch_dims, shape, dtype) in zip(records, self.points, strict=True):
            value = record[1]
            if record[0] is not point or point.batch_dims != batch_dims:
                return False
            if isinstance(record, Record):
                if record.shape != shape or record.rows is not None or type_of(value) is not dtype:
                    return False
            elif value is None or value.shape != shape or value.dtype is not dtype:
                return False
        for output, (shape, dtype, device) in zip(outputs, self.outputs, strict=True):
            if output.shape != shape or output.dtype is not dtype or output.device != device:
                return False
        return torch.is_grad_enabled() is self.recording and autocast(self.device) is self.autocast


def type_of(value: Tensor | None) -> torch.dtype | None:
    return None if value is None else value.dtype


def autocast(device: str) -> torch.dtype | None:
    """The type that operations are cast to on a device; None outside autocast."""
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
