"""A run without a folder, for trainings of which only the result is needed."""

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from harness.run.numbers import check_loss, number_of
from harness.run.run import Run

T = TypeVar("T")


class NullRun(Run):
    """A run that leaves nothing behind: no folder, no checkpoint, no line printed.

    Args:
        task: Name of the task's folder.
        config: The settings of the run, for its result.
    """

    def __init__(self, task: str, config: Any) -> None:
        self.task, self.config = task, config
        self._earlier, self._start = 0.0, time.perf_counter()

    def __exit__(self, *_: object) -> None:
        pass

    def log(self, step: int, **scalars: Any) -> None:
        """Raise for a loss that is not finite; nothing is written."""
        for name, value in scalars.items():
            if "loss" in name:
                check_loss(number_of(name, value), step)

    def save(self, step: int, **state: Any) -> None:
        """Nothing is kept."""

    def restore(self, by_others: object = None) -> None:
        """There is nothing to restore."""

    def keep(self, name: str, text: str) -> None:
        """Nothing is kept."""

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """`iterable`, without a bar."""
        return iter(iterable)

    def show(self, loss: Any, count: int = 1) -> None:
        """There is no bar."""

    def say(self, text: str) -> None:
        """Nothing is printed."""

    def finish(self, *, device: Any = None, **about: Any) -> dict[str, Any]:
        """Return the result; nothing is written."""
        return self._result(device=device, **about)
