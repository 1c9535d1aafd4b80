"""Folders of the cache: made once, by one process at a time, and either complete or absent."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable
from pathlib import Path

from harness.files import PARTIAL, alone, filling

WAY_OUT = "Set TINYDFA_CACHE to a folder that can be written and has space"


def make_once(
    folder: Path,
    make: Callable[[Path], object],
    way_out: str = WAY_OUT,
    is_whole: Callable[[Path], bool] = Path.is_dir,
    *,
    go_on: bool = False,
) -> Path:
    """The folder that `make` fills. `make` is called if the folder does not exist.

    Other processes that need the same folder wait until it exists.

    Args:
        folder: Its name identifies its content: options, a digest of the data, a version.
        make: Fills the folder that it is given, which is then renamed.
        way_out: What to do if it cannot be written; ends the message.
        is_whole: Whether the folder is there and undamaged; a damaged one is made again.
        go_on: `make` is given what an interrupted process left. Otherwise that is removed, and the folder is empty.

    Returns:
        `folder`.

    Raises:
        UserError: it could not be written, or `make` raised it; then there is no folder.
    """
    if is_whole(folder):
        return folder
    with alone(folder, way_out):
        if not is_whole(folder):  # another process may have made it meanwhile
            for left in folder.parent.glob(f"{glob.escape(folder.name)}.*{PARTIAL}"):
                shutil.rmtree(left, ignore_errors=True)
            with filling(folder, way_out, go_on=go_on) as partial:
                make(partial)
    return folder
