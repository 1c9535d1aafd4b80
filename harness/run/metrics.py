"""`metrics.jsonl` of a run: one line per call of `Run.log`, cut back to a checkpoint by a resume.

The length that belongs to a checkpoint is kept in bytes, so it does not matter what the lines say.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError, writing

WAY_OUT = "Free some space, then continue with --resume"


class MetricsFile:
    """The file at `path`; it need not exist. Every method raises `UserError` if it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, Any]) -> None:
        """Add one line."""
        with writing(self.path, WAY_OUT), open(self.path, "ab") as file:
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")

    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def sync(self) -> int:
        """Bytes so far, all of them on the disk: a checkpoint must never be ahead of them."""
        with writing(self.path, WAY_OUT), open(self.path, "ab") as file:
            os.fsync(file.fileno())
            return file.tell()

    def cut(self, size: int) -> None:
        """Drop what lies behind the first `size` bytes."""
        with writing(self.path, WAY_OUT), open(self.path, "ab") as file:
            if file.tell() < size:
                message = f"{self.path} is shorter than when the checkpoint was written. Start over with --out."
                raise UserError(message)
            file.truncate(size)
