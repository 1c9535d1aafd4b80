"""Progress bars: drawn by rich on a terminal, silent in a log file, a pipe or a worker process."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of `iterable` behind a progress bar on stderr.

    Args:
        iterable: What to go through.
        description: Shown before the bar.
        total: Number of items, where `len(iterable)` does not say it.
    """
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    yield from rich_track(iterable, description, total=total, console=console, transient=True)
