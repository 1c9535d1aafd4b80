"""Where data lies, and how a missing file gets there: read-only root first, then the cache, then the network.

The root (`--data-dir`, else `$DFA_DATA`, else `data/` in the user's cache folder) is only ever read. Downloads go to the
cache folder, through pooch: to a temporary file, checked, then moved, so that a file with its final name is whole.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError, writing


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set and where it can be had."""

    path: str  # relative to the data root
    sha256: str | None  # hexadecimal; None: not known, and then not checked
    size: int | None  # bytes; None: not known
    urls: tuple[str, ...]  # mirrors, tried in this order


def data_root(data_dir: Path | None = None) -> Path:
    """The folder to look for data in; it need not exist.

    Raises:
        UserError: `data_dir` or `$DFA_DATA` is given and is not a folder.
    """
    for value, origin in ((data_dir, "--data-dir"), (os.environ.get("DFA_DATA"), "$DFA_DATA")):
        if value:
            root = Path(value).expanduser()
            if not root.is_dir():
                raise UserError(f"{origin} {root}: no such folder. Give an existing one, or leave it out.")
            return root
    return cache_dir() / "data"


def cache_dir() -> Path:
    """The folder for downloads and for what is derived from data: `$TINYDFA_CACHE`, else the user's cache folder."""
    import platformdirs

    given = os.environ.get("TINYDFA_CACHE")
    folder = Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("tinydfa"))
    with writing(folder, "Set TINYDFA_CACHE to a folder that can be written"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch(files: Sequence[RemoteFile], root: Path, what: str) -> list[Path]:
    """Find or download every file of a data set.

    Args:
        files: What is needed.
        root: The data root; only read.
        what: Name of the data set, for messages.

    Returns:
        One path per file, below `root` if it is there, else in the cache.

    Raises:
        UserError: a file has another sha256 or size than stated, or is nowhere to be had.
    """
    raise NotImplementedError
