"""Small files that are there whole or not at all, whenever the process is killed; files that one process holds."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.errors import NEW_OUT, UserError, writing


def write_whole(path: Path, content: str | bytes, way_out: str = NEW_OUT) -> None:
    """Write `content` to `path`, text as UTF-8, folders included: to a temporary file, synced, then renamed.

    Raises:
        UserError: it cannot be written; `way_out` ends the message. A file of that name stays as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path, way_out):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


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

    What file managers and version control hide, by a dot before its name, is left out.

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
    """Raise `UserError` for a link to nowhere, or for a pipe or the like, which a reader would wait for."""
    if not path.is_file():
        cause = "is no plain file" if path.exists() else "is a link to a file that is not there"
        raise UserError(f"{path} {cause}. Remove it.")


def lock(file: IO | int, wait: bool = True) -> bool:
    """Hold an open file against other processes until it is closed or this process ends, however it ends.

    Args:
        file: Any open file, or its descriptor; what it holds does not matter.
        wait: Until another process lets go of it.

    Returns:
        False if another process holds it and there was no waiting. A system without such locks keeps nobody out.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
