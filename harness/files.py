"""Atomic writes: a file or folder is complete or absent, whenever the process is killed. Locks between processes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness.errors import NEW_OUT, UserError, writing

if TYPE_CHECKING:
    from filelock import BaseFileLock

PARTIAL = ".partial"  # ends the name of a folder that is being filled


def write_whole(path: Path, content: str | bytes, way_out: str = NEW_OUT) -> None:
    """Write `content` to `path`, text as UTF-8; see `replacing`."""
    with replacing(path, way_out) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path, way_out: str = NEW_OUT) -> Iterator[IO[bytes]]:
    """A file to write that gets the name `path` when the block ends: synced, then renamed, folders included.

    Two processes may write the same file at the same time.

    Raises:
        UserError: it cannot be written; `way_out` ends the message. A file of that name stays as it was, also if the
            block raises.
    """
    with writing(path, way_out):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def filling(folder: Path, way_out: str = NEW_OUT, *, go_on: bool = False) -> Iterator[Path]:
    """A folder to fill that gets the name `folder` when the block ends, in place of what has that name.

    Args:
        folder: The name.
        way_out: What to do if it cannot be written; ends the message.
        go_on: If the block raises, keep what it has written, and give it to the next one. One process at a time may do
            that (see `alone`). Otherwise the folder to fill is empty.

    Raises:
        UserError: it cannot be written. A folder of that name stays as it was, also if the block raises.
    """
    partial = folder.with_name(folder.name + (PARTIAL if go_on else f".{os.getpid()}{PARTIAL}"))
    with writing(folder, way_out):
        if not go_on:
            shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=go_on)
        try:
            yield partial
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            if not go_on:
                shutil.rmtree(partial, ignore_errors=True)
            elif partial.is_dir() and not any(partial.iterdir()):
                partial.rmdir()


def name_of(path: Path, otherwise: str) -> str:
    """What the data at `path` is called in results: its last part, of a file without suffix; bytes that are no text
    are replaced.

    Args:
        path: A file or folder, such as "." for this one.
        otherwise: Its name where it has none, as the root folder.
    """
    path = path.expanduser().resolve()
    name = path.name if path.is_dir() else path.stem
    return name.encode(errors="surrogateescape").decode(errors="replace") or otherwise


def walk(folder: Path, way_out: str) -> Iterator[Path]:
    """The files below a folder in order, also where links to folders lead; each folder is entered once.

    Files and folders whose names begin with a dot are left out.

    Args:
        folder: The folder.
        way_out: What to do about a folder that cannot be read; ends the message.

    Raises:
        UserError: a folder cannot be read, so that its files would be missing.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror}. {way_out}.") from error

    def is_new(path: Path) -> bool:
        place = os.path.realpath(path)
        known = place in seen
        seen.add(place)
        return not known

    seen = {os.path.realpath(folder)}
    for place, inner, names in os.walk(folder, onerror=refuse, followlinks=True):
        inner[:] = [name for name in sorted(inner) if not name.startswith(".") and is_new(Path(place) / name)]
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def refuse_unplain(path: Path) -> None:
    """Raise `UserError` for a broken link, and for a pipe or a device, on which a reader would block."""
    if not path.is_file():
        cause = "is no plain file" if path.exists() else "is a link to a file that is not there"
        raise UserError(f"{path} {cause}. Remove it.")


@contextlib.contextmanager
def alone(path: Path, way_out: str = NEW_OUT) -> Iterator[None]:
    """Let one process at a time work on `path`; the others wait. `path` with ".lock" after it is what they wait for.

    Raises:
        UserError: that file cannot be written; `way_out` ends the message.
    """
    held = hold(path.with_name(path.name + ".lock"), wait=True, way_out=way_out)
    try:
        yield
    finally:
        if held is not None:
            held.release()


def hold(path: Path, *, wait: bool, way_out: str = NEW_OUT) -> BaseFileLock | None:
    """Hold the file `path`, folders included, against other processes until `release`, or until this process ends.

    Args:
        path: The file; its content is ignored, and it is not removed.
        wait: Until another process lets go of it.
        way_out: What to do if it cannot be written; ends the message.

    Returns:
        The lock; None on a file system without locks, where nothing is locked.

    Raises:
        filelock.Timeout: another process holds it and there was no waiting.
        UserError: it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=-1 if wait else 0, mode=0o666)
    held: Timeout | None = None
    try:
        with writing(path, way_out):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except Timeout as timeout:  # an OSError, but not a failure to write
                held = timeout
    except NotImplementedError:
        return None
    if held is not None:
        raise held
    return lock
