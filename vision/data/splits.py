"""Samples and their targets, whole and in batches.

Letters: N samples, C channels, H rows, W columns, f features of a vector, t targets of a regression.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.errors import UserError
from harness.processes import current


@dataclass(frozen=True)
class Split:
    """Samples and their targets, whole, on one device."""

    x: Tensor  # float32 [N, C, H, W], or [N, f]
    y: Tensor  # class ids, int64 [N], or targets, float32 [N, t]

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Split:
        """The same on `device`."""
        return Split(self.x.to(device), self.y.to(device))

    def drawn(self, count: int, seed: int) -> Split:
        """`count` samples drawn by `seed`, without moving the global generator: a set may be sorted by class."""
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count].to(self.x.device)
        return Split(self.x[chosen], self.y[chosen])

    def batches(
        self, size: int, *, shuffle: bool = True, flip: bool = False, drop_last: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over the samples, in batches of `size`.

        Args:
            size: Samples a batch; the last may be smaller.
            shuffle: In an order from torch's global CPU generator, which runs save and restore: the same on every
                device, and in all processes that train together. Without it batches are views.
            flip: Mirror each image left-right with chance 1/2, from the same generator.
            drop_last: Leave out a last batch that is smaller.

        Raises:
            UserError: there is no batch of that size, or nothing to mirror.
        """
        count, device = len(self), self.x.device
        if drop_last and size > count:
            raise UserError(f"--batch {size} leaves no whole batch of {count} samples. Make it {count} or less.")
        if flip and self.x.dim() != 4:
            raise UserError("flip mirrors images, and these samples are vectors. Use a preset without it.")
        once = current().once
        order = once(lambda: torch.randperm(count)).to(device) if shuffle else None
        mirrored = once(lambda: torch.rand(count) < 0.5).to(device)[:, None, None, None] if flip else None
        for start in range(0, count - size + 1 if drop_last else count, size):
            part = slice(start, start + size)
            if order is None:
                x, y = self.x[part], self.y[part]
            else:
                x, y = self.x.index_select(0, order[part]), self.y.index_select(0, order[part])
            yield (x if mirrored is None else torch.where(mirrored[part], x.flip(-1), x)), y


@dataclass(frozen=True)
class Data:
    """A data set, ready to train on."""

    name: str
    train: Split
    val: Split | None  # held out of the training set, if that was asked for
    test: Split
    classes: int | None  # None: a regression
    outputs: int  # that a network needs: classes, or t
    shape: tuple[int, ...]  # of one sample

    @property
    def device(self) -> torch.device:
        """Where the samples are."""
        return self.train.x.device

    def to(self, device: torch.device | str) -> Data:
        """The same on `device`."""
        val = None if self.val is None else self.val.to(device)
        return replace(self, train=self.train.to(device), val=val, test=self.test.to(device))
