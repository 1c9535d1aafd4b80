"""Where the numbers of `Run.log` go: `metrics.jsonl`, TensorBoard's events beside it, and trackers such as W&B.

`metrics.jsonl` has one line per call and is cut back to a checkpoint by a resume. The length that belongs to a
checkpoint is kept in bytes, independent of what the lines contain.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from harness.errors import UserError, writing

WAY_OUT = "Free some space, then continue with --resume"
TrackerName = Literal["tensorboard", "wandb", "mlflow"]


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
        """Size in bytes, after syncing to the disk: a checkpoint must never be ahead of the file."""
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


class Board:
    """TensorBoard's events in `folder`; made with the first numbers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None  # TensorBoard's

    def log(self, numbers: Mapping[str, float], step: int, last_step: int) -> None:
        """Add numbers at `step`; older events after `last_step`, the step of the checkpoint, are dropped."""
        with writing(self.folder):
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self.folder), purge_step=last_step + 1)
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Flush the events to the disk."""
        if self._writer is not None:
            with writing(self.folder):
                self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            with contextlib.suppress(OSError):  # a full disk has been reported by then
                self._writer.close()


class Trackers:
    """accelerate's trackers of one run. They get the same numbers as `metrics.jsonl`, and the configuration."""

    def __init__(self) -> None:
        self._started: dict[str, Any] = {}

    def start(self, names: Iterable[str], task: str, run: str, folder: Path, settings: Mapping[str, Any]) -> None:
        """Start them.

        Args:
            names: Which; "tensorboard" is passed over, for its events are always there.
            task: The run's task; the project is called tinydfa-<task>.
            run: Name of the run.
            folder: The run's folder.
            settings: Its configuration.

        Raises:
            UserError: one cannot be started.
        """
        own = {"wandb": {"name": run, "dir": str(folder)}, "mlflow": {"run_name": run}}
        for name in dict.fromkeys(names):
            if name != "tensorboard":
                self._start(name, f"tinydfa-{task}", own[name], settings)

    def _start(self, name: str, project: str, options: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        from accelerate import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        try:
            PartialState()  # accelerate's trackers ask it which process they run in
            tracker = LOGGER_TYPE_TO_CLASS[name](project, **options)
            tracker.start()
            self._started[name] = tracker
            tracker.store_init_configuration(dict(settings))
        except Exception as error:  # raised by the package or the network
            self.close()
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise UserError(f"--tracker {name} cannot be started ({reason}). Mend that, or leave it out.") from error

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Pass on numbers at `step`. A tracker that fails is left out from then on, and a line on stderr says so."""
        for name, tracker in list(self._started.items()):
            try:
                tracker.log(dict(numbers), step=step)
            except Exception as error:  # a server that fails must not end the training
                del self._started[name]
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                print(f"warning: {name} takes no more numbers ({reason}); the run goes on without it", file=sys.stderr)

    def close(self) -> None:
        """Finish all trackers."""
        while self._started:
            _, tracker = self._started.popitem()
            with contextlib.suppress(Exception):
                tracker.finish()


def check_trackers(names: Iterable[str]) -> None:
    """Raise `UserError` if the package of a tracker is not installed; accelerate would leave the tracker out."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                f"--tracker {name} needs the package {name}, which is not installed. Install it (pip install {name}), "
                "or leave it out."
            )
