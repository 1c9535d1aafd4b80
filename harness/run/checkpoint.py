"""Checkpoints that survive a kill at any moment: written to a temporary file, synced, then renamed.

The one before `checkpoint.pt` is kept as `checkpoint.previous.pt`, in case the disk itself, or a copy from another
machine, damages the newest.
"""

import contextlib
import os
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from harness.errors import UserError

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
TEMPORARY = "checkpoint.pt.tmp"
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Size, torch.dtype, torch.device)
MAPPINGS, SEQUENCES = (dict, OrderedDict, Counter), (list, tuple, set)  # other subclasses are not read back
DEPTH = 100  # levels of lists in lists


def write_checkpoint(folder: Path, content: dict[str, Any]) -> Path:
    """Write `content` (tensors, numbers, strings, lists and dicts of them) as the newest checkpoint of `folder`.

    Raises:
        TypeError: `content` holds something else, which `read_checkpoint` would not give back; names it.
        UserError: it could not be written. The checkpoint written before is intact and no temporary file is left.
    """
    path, temporary = folder / NAME, folder / TEMPORARY
    _refuse_objects(content, "checkpoint")
    try:
        _write(temporary, content)
        _keep_previous(folder)
        os.replace(temporary, path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        kept = f"The last good checkpoint, {path}, is intact" if path.exists() else "There is no earlier checkpoint"
        way_out = (
            "Free some space or make the folder writable, then continue with --resume, or choose another with --out"
        )
        raise UserError(f"cannot write {path}: {_reason(error)}. {kept}. {way_out}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def read_checkpoint(folder: Path, or_previous: bool = False) -> dict[str, Any] | None:
    """The newest checkpoint of `folder`, on the CPU; None if there is none.

    Args:
        folder: The run's.
        or_previous: Fall back to the one before it if only that exists. A training then ends with the same numbers.

    Raises:
        UserError: the file is damaged; names it and the way out.
    """
    path = folder / NAME
    if or_previous and not path.exists():
        path = folder / PREVIOUS
    if not path.exists():
        return None
    try:
        return _load(path)
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Make it readable, or start over with --out.") from error
    except Exception as error:
        raise UserError(_damaged(path)) from error


def load_plain(path: Path, classes: Sequence[type] = ()) -> Any:
    """What torch.save wrote, on the CPU, without running any code in it.

    Args:
        path: The file.
        classes: Containers that it may hold besides tensors and plain values.

    Raises:
        Exception: of many kinds; the file is damaged, or holds something else.
    """
    with zipfile.ZipFile(path) as archive:  # torch does not verify the checksums it stores
        if broken := archive.testzip():
            raise ValueError(f"the sum of {broken} differs")
    with torch.serialization.safe_globals(list(classes)):
        return torch.load(path, map_location="cpu", weights_only=True)


def why_unreadable(error: Exception) -> str:
    """The cause in an error of `load_plain`, without torch's advice, which is to run the code in the file."""
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"{found[1]}, which is code"
    if found := re.search(r"WeightsUnpickler error: (.*)", text):
        return found[1].strip() or "no plain values"
    return type(error).__name__ if not text or "weights_only" in text else text.splitlines()[0]


def _load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; any exception means that it is not one."""
    content = load_plain(path)
    if not isinstance(content, dict) or "step" not in content:
        raise ValueError("no step in it")
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, and read it back without its data: torch itself decides what it refuses to read.

    What `_refuse_objects` does not see is found here, such as an attribute of a tensor or of an OrderedDict.
    """
    try:
        with open(path, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.PickleError, AttributeError) as error:  # the latter: an object of a function's own class
        raise TypeError(
            f"something in the checkpoint could not be read back: {why_unreadable(error)}. "
            "A checkpoint holds tensors and plain values: use detach(), float(), str() or dict()"
        ) from error


def _refuse_objects(value: Any, name: str, depth: int = 0) -> None:
    """Raise for what `torch.load(weights_only=True)` would refuse: better now than after the crash."""
    if depth > DEPTH:
        raise TypeError(
            f"{name[:80]}... lies more than {DEPTH} levels deep, or holds itself; store flat lists and dicts"
        )
    if type(value) in MAPPINGS:
        for key, item in value.items():
            _refuse_objects(key, f"key of {name}", depth + 1)
            _refuse_objects(item, f"{name}[{key!r}]", depth + 1)
    elif type(value) in SEQUENCES:
        for index, item in enumerate(value):
            _refuse_objects(item, f"{name}[{index}]", depth + 1)
    elif not isinstance(value, torch.Tensor) and type(value) not in PLAIN:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"{name} is a {kind}; a checkpoint holds tensors and plain values: "
            "use float(), str(), dict(), list() or .value"
        )


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep_previous(folder: Path) -> None:
    """Link the newest checkpoint as the previous one. `checkpoint.pt` is complete at every moment."""
    path, previous, link = folder / NAME, folder / PREVIOUS, folder / "checkpoint.previous.tmp"
    if not path.exists():
        return
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links: then only the newest is kept
        return
    os.replace(link, previous)


def _reason(error: BaseException | None) -> str:
    """The operating system's reason behind an error: torch wraps a failed write in a RuntimeError."""
    first = error
    while error is not None:
        if isinstance(error, OSError):
            return error.strerror or str(error)
        error = error.__cause__ or error.__context__
    return str(first).splitlines()[0]


def _damaged(path: Path) -> str:
    """What to do about a damaged checkpoint: take the one before it, if that is sound."""
    previous = path.with_name(PREVIOUS)
    message = f"{path} is damaged or not a checkpoint of ours (cut short while being copied?)"
    if path == previous or not previous.exists():
        return f"{message}. Restore it from a copy, or delete it to start over."
    if not _is_sound(previous):
        return f"{message}, and so is {previous}. Restore one of them from a copy, or start over with --out."
    return f"{message}. The one before it is kept: `mv {previous} {path}` and --resume again, or start over with --out."


def _is_sound(path: Path) -> bool:
    try:
        _load(path)
    except Exception:
        return False
    return True
