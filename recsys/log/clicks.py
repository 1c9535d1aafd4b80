"""Click logs as the models see them: a table of category ids and a column of clicks, in three parts.

A row is one impression. It has F fields. In field f it has a category id from 0 to field_dims[f] - 1; id 0 is shared by
all rare categories. Numbers are binned, so they are categories too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from recsys.log.encoder import Encoder


@dataclass(frozen=True)
class Clicks:
    """One part of a click log. The tensors may lie in memory-mapped files and be larger than the memory."""

    fields: Tensor  # int32 [N, F], category ids
    labels: Tensor  # uint8 [N], 1 = click

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The chosen rows, copied to memory.

        Args:
            index: Row numbers ``[B]``, a mask ``[N]``, or a slice.

        Returns:
            Category ids, int32 ``[B, F]``, and clicks, float32 ``[B]``.
        """
        fields, labels = self.fields[index], self.labels[index]
        return (fields.clone() if isinstance(index, slice) else fields), labels.float()


@dataclass(frozen=True)
class ClickData:
    """A click log: what to train on, what to choose by, what to report."""

    name: str
    train: Clicks
    val: Clicks
    test: Clicks
    field_dims: tuple[int, ...]  # categories of each field, id 0 included
    field_names: tuple[str, ...]
    encoder: Encoder  # turns raw rows into fields
    folder: Path  # where the prepared log lies in the cache
    best_auc: float | None = None  # synthetic log: the test AUC of the process that drew the clicks
