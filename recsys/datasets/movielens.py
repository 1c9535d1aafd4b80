"""MovieLens 100K and 1M as click logs: a rating of 4 or 5 is a click, the fields are the user and the item.

As in torchfm, which the published runs used, a row has no other field. Every user and every item has its own id. The
ratings are split 80/10/10 at random. The data is licensed for research, and must not be redistributed.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

from harness.data import RemoteFile, cache_dir, data_root, fetch
from harness.errors import UserError
from harness.files import write_whole
from recsys.log.blocks import NO_SPACE
from recsys.log.cache import open_log
from recsys.log.clicks import ClickData
from recsys.log.formats import RowFormat, Rule, Source

LAYOUT_100K = RowFormat(
    separator="\t",
    columns=("user", "item", "rating", "time"),
    fields=(("user", Rule.CATEGORY), ("item", Rule.CATEGORY)),
    label="rating",
    clicks=("4", "5"),
    misses=("1", "2", "3"),
)
LAYOUT_1M = replace(LAYOUT_100K, separator="::")

RATINGS_100K = RemoteFile(
    path="ml-100k/u.data",
    sha256="06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    size=1_979_173,
    urls=("https://files.grouplens.org/datasets/movielens/ml-100k/u.data",),
)
ARCHIVE_1M = RemoteFile(
    path="ml-1m.zip",
    sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    size=5_917_549,
    urls=(
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        "https://huggingface.co/datasets/Recommenders/MovieLens/resolve/main/ml-1m.zip",
    ),
)
RATINGS_1M = "ml-1m/ratings.dat"  # below the data root, and in the archive
LARGEST = 1 << 27  # bytes to extract at most


def read_movielens(dataset: str, data_dir: Path | None, *, seed: int, limit: int | None = None) -> ClickData:
    """The ratings of "ml-100k" or "ml-1m", found below the data root or downloaded.

    Raises:
        UserError: a file is not found and not downloadable, or is not the published one.
    """
    root = data_root(data_dir)
    if dataset == "ml-100k":
        path, layout = fetch([RATINGS_100K], root, "MovieLens-100K")[0], LAYOUT_100K
    else:
        path, layout = _ratings_1m(root), LAYOUT_1M
    return open_log(dataset, [Source(path)], layout, seed=seed, min_count=1, count_all=True, limit=limit)


def _ratings_1m(root: Path) -> Path:
    """`ratings.dat` of MovieLens-1M: below the root, in the cache, or extracted from the archive."""
    unpacked = cache_dir() / "data" / RATINGS_1M
    for path in (root / RATINGS_1M, unpacked):
        if path.is_file():
            return path
    (archive,) = fetch([ARCHIVE_1M], root, "MovieLens-1M")
    take_out(archive, RATINGS_1M, unpacked)
    return unpacked


def take_out(archive: Path, member: str, target: Path) -> None:
    """Extract one file of a zip archive to `target`, and nothing else.

    Raises:
        UserError: the archive is damaged, the file is not in it or too large, or `target` cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            content = opened.open(member).read(LARGEST + 1)  # checks the CRC at the end
    except (OSError, KeyError, ValueError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(
            f"{archive}: cannot extract {member} ({error}). Remove the archive to have it downloaded again."
        ) from error
    if len(content) > LARGEST:
        raise UserError(
            f"{archive}: its {member} is larger than {LARGEST} bytes. Remove the archive to have it downloaded again."
        )
    write_whole(target, content, NO_SPACE)
