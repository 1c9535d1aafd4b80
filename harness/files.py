"""Small files that are there whole or not at all, whenever the process is killed; files that one process holds."""

import os
from pathlib import Path
from typing import IO

from harness.errors import NEW_OUT, writing


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
