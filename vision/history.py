"""What happened in each epoch of a training, and the numbers that are reported of it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from harness.run.numbers import by_curve
from harness.run.stateful import Record


@dataclass
class History(Record):
    """One entry an epoch; errors are shares of the samples, and a regression has none."""

    train_loss: list[float] = field(default_factory=list)  # while the epoch went on, dropout on
    train_error: list[float] = field(default_factory=list)  # likewise
    val_error: list[float] = field(default_factory=list)  # empty without held-out images
    test_loss: list[float] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of training and evaluation
    alignment: dict[str, list[float]] = field(default_factory=dict)  # cosine by feedback point

    def add(self, seconds: float, alignment: dict[str, float], **numbers: float | None) -> None:
        """Append an epoch: its time, the cosine at each point, and losses and errors by name."""
        self.seconds.append(seconds)
        for point, cosine in alignment.items():
            self.alignment.setdefault(point, []).append(cosine)
        for name, value in numbers.items():
            if value is not None and not math.isnan(value):
                getattr(self, name).append(value)

    def forget_last_alignment(self, done: int, every: int | None, last: int) -> None:
        """Drop what was measured after epoch `done` because it was the last, if there are more epochs now.

        Args:
            done: Epochs so far.
            every: Epochs between two measurements.
            last: Number of the last epoch.
        """
        if every is not None and done < last:
            for values in self.alignment.values():
                del values[done // every :]

    def metrics(self) -> dict[str, float]:
        """The numbers of the epoch that is reported: the last, or the first of the best error on held-out images.

        Example:
            >>> History([2, 1], [0.5, 0.4], [], [2, 1], [0.6, 0.5], [1.0, 3.0]).metrics()["test_error"]
            0.5
        """
        best = self.val_error.index(min(self.val_error)) if self.val_error else -1
        names = ("train_loss", "train_error", "val_error", "test_loss", "test_error")
        found = {name: getattr(self, name)[best] for name in names if getattr(self, name)}
        found |= {name.replace("error", "accuracy"): 1 - value for name, value in found.items() if "error" in name}
        found |= by_curve({point: values[-1] for point, values in self.alignment.items()})
        return found | {"epochs": len(self.seconds), "seconds_per_epoch": statistics.median(self.seconds)}

    def has_settled(self, tolerance: float) -> bool:
        """Whether the training error changed by no more than `tolerance` in the last epoch; never for 0."""
        recent = self.train_error[-2:]
        return tolerance > 0 and len(recent) == 2 and abs(recent[1] - recent[0]) <= tolerance

    def curves(self) -> dict[str, Any]:
        """The lists that figures are drawn from, points of alignment under "alignment <point>"."""
        names = ("train_loss", "train_error", "val_error", "test_loss", "test_error")
        found = {name: getattr(self, name) for name in names if getattr(self, name)}
        return found | by_curve(self.alignment)
