"""Progress bars: drawn by rich on a terminal, silent in a log file, a pipe or a worker process."""

from collections.abc import Iterable, Iterator, Sized
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")
EVERY = 1.0  # seconds between two reads of the loss from a device


class Bar:
    """A progress bar on stderr with the steps done and the latest loss."""

    def __init__(self) -> None:
        self._drawn: Any = None  # rich's bar, while it is displayed
        self._next = 0.0  # when a loss may be read again
        self._loss = ""

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield the items of `iterable` behind the bar.

        Args:
            iterable: What to go through.
            description: Shown before the bar.
            total: Number of items, where `len(iterable)` does not say it.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if not console.is_terminal:
            yield from iterable
            return
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as self._drawn:
            task = self._drawn.add_task(description, total=total, loss=self._loss)
            for item in iterable:
                yield item
                self._drawn.advance(task)
        self._drawn = None

    def show(self, loss: Any, count: int = 1, *, now: bool = False) -> None:
        """Show a loss beside the bar.

        Reading a loss synchronises with its device. It is done at most once a second, and only if a bar is displayed.

        Args:
            loss: A number or a tensor of one; None: it is not known in this process.
            count: What to divide it by, for the loss of one sample.
            now: Show it even if a second has not passed.
        """
        if self._drawn is None or loss is None or not (now or monotonic() >= self._next):
            return
        self._loss = f"loss {float(loss) / count:.4g}"
        for task in self._drawn.task_ids:
            self._drawn.update(task, loss=self._loss)
        self._next = monotonic() + EVERY


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """`iterable` behind a bar of its own; see `Bar.track`."""
    return Bar().track(iterable, description, total)
