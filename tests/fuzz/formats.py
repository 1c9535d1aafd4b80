"""What the fuzz run knows of a format that the project reads."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Format:
    """One format: how to write a small valid input, and how the project's commands read it."""

    make: Callable[[Path, random.Random], Path]  # writes into a folder, returns what `read` takes
    read: Callable[[Path], object]
    damage: tuple[str, ...] = ("**/*",)  # glob patterns, below the folder, of the files to damage
