"""Small files that are there whole or not at all, whenever the process is killed."""

import os
from pathlib import Path

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
