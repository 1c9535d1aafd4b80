"""Where data lies, and how a missing file gets there: read-only root first, then the cache, then the network.

The root (`--data-dir`, else `$DFA_DATA`, else `data/` in the user's cache folder) is read-only. Downloads go to
the cache folder (`harness.data.download`); a file with its final name there is whole.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.download import download, sha256
from harness.errors import UserError, writing


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set and where it can be downloaded."""

    path: str  # relative to the data root
    sha256: str | None  # hexadecimal; None: not known, and then not checked
    size: int | None  # bytes; None: not known
    urls: tuple[str, ...]  # mirrors, tried in this order
    also: tuple[str, ...] = ()  # where other tools put it, relative to the root


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
        UserError: a file has another sha256 or size than stated, or is not found and not downloadable.
    """
    store = cache_dir() / "data"
    found = [_present(file, (root, store)) for file in files]
    missing = [file for file, path in zip(files, found, strict=True) if path is None]
    for file in missing:
        failures = download(file.urls, store / file.path, file.sha256, file.size, store.parent / "partial")
        if failures:
            raise UserError(_not_found(what, missing, (root, store), failures))
    return [path or store / file.path for file, path in zip(files, found, strict=True)]


def _present(file: RemoteFile, roots: Sequence[Path]) -> Path | None:
    """The first of the candidates that exists, checked; None if there is none."""
    for path in (root / place for root in roots for place in (file.path, *file.also)):
        if path.is_file():
            _check(path, file)
            return path
    return None


def _check(path: Path, file: RemoteFile) -> None:
    """Raise unless `path` has the stated size and sha256."""
    way_out = "Replace it, or remove it to have it downloaded"
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise UserError(f"{path} has {size} bytes where the published file has {file.size}. {way_out}.")
    if file.sha256 is None:
        return
    digest = sha256(path)
    if digest != file.sha256.lower():
        raise UserError(f"{path} is not the published file: its sha256 is {digest}, not {file.sha256}. {way_out}.")


def _not_found(what: str, missing: Sequence[RemoteFile], roots: Sequence[Path], failures: Sequence[str]) -> str:
    """The error for files that were not found: every place and every mirror in one message."""
    names = ", ".join(file.path for file in missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
    places = " and ".join(dict.fromkeys(str(root) for root in roots))
    return (
        f"{what} is not there: looked for {names} below {places}, and could not download it ({'; '.join(failures)}). "
        f"Get the files from these addresses on another day or machine, put them below a folder and give that as "
        f"--data-dir, or use --dataset synthetic (of reproduce: --scale quick), which needs nothing."
    )
