"""What is made once and kept in the cache: by one process at a time, and there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from harness.errors import writing
from harness.files import alone

WAY_OUT = "Set TINYDFA_CACHE to a folder that can be written and has space"


def make_once(
    folder: Path,
    make: Callable[[Path], object],
    way_out: str = WAY_OUT,
    is_whole: Callable[[Path], bool] = Path.is_dir,
) -> Path:
    """The folder that `make` fills, which is called if it is not there.

    Other processes that want the same folder wait, and then find it.

    Args:
        folder: Its name says all that decides what is in it: options, a digest of the data, a version.
        make: Fills the empty folder that it is given, which is then renamed. What a killed process left is removed.
        way_out: What to do if it cannot be written; ends the message.
        is_whole: Whether the folder is there and undamaged; a damaged one is made again.

    Returns:
        `folder`.

    Raises:
        UserError: it could not be written, or `make` raised it; then there is no folder.
    """
    if is_whole(folder):
        return folder
    with alone(folder, way_out):
        if not is_whole(folder):  # another process may have made it meanwhile
            partial = folder.with_name(folder.name + ".partial")
            with writing(folder, way_out):
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                try:
                    make(partial)
                    shutil.rmtree(folder, ignore_errors=True)
                    os.replace(partial, folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    return folder
