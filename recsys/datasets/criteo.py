"""The Criteo display advertising log as Kaggle published it: 45,840,617 rows, 13 counts and 26 categories.

`train.txt` has no header; its columns are separated by tabs: the label, I1 to I13, C1 to C26. An empty column is a
missing value. As in the published runs, rows are split 80/10/10 at random, categories seen less than ten times in the
whole file share one id, and counts are binned by `Rule.LN2`.
"""

from __future__ import annotations

from pathlib import Path

from harness.data import data_root
from harness.errors import UserError
from recsys.log.cache import open_log
from recsys.log.clicks import ClickData
from recsys.log.formats import NUMBER, RowFormat, Rule, Source

INTEGERS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = tuple(f"C{number}" for number in range(1, 27))
ADDRESSES = (
    "https://huggingface.co/datasets/Recommenders/criteo/resolve/main/dac.tar.gz",
    "https://ndownloader.figshare.com/files/10082655",
    "https://go.criteo.net/criteo-research-kaggle-display-advertising-challenge-dataset.tar.gz",
)


def criteo_layout(binning: str = "ln2") -> RowFormat:
    """The lines of the Kaggle file.

    Raises:
        UserError: no such binning.
    """
    if binning not in NUMBER:
        raise UserError(f"--binning {binning}: no such rule. There are {', '.join(NUMBER)}.")
    integers = tuple((name, Rule(binning)) for name in INTEGERS)
    return RowFormat(
        separator="\t",
        columns=("label", *INTEGERS, *CATEGORIES),
        fields=(*integers, *((name, Rule.CATEGORY) for name in CATEGORIES)),
        label="label",
        clicks=("1",),
        misses=("0",),
    )


def read_criteo(
    path: Path, name: str = "criteo", *, seed: int, min_count: int, binning: str, limit: int | None = None
) -> ClickData:
    """A log in the Kaggle format, split 80/10/10 at random.

    Raises:
        UserError: the file cannot be read, or has another format.
    """
    layout = criteo_layout(binning)
    return open_log(name, [Source(path)], layout, seed=seed, min_count=min_count, count_all=True, limit=limit)


def find_criteo(data_dir: Path | None, criteo_file: Path | None) -> Path:
    """The path of the Kaggle file: `criteo_file` if given, else `criteo/train.txt` below the data root.

    It is not downloaded automatically: it is large (4.6 GB packed, 11 GB unpacked), and no checksum is published.

    Raises:
        UserError: there is no such file.
    """
    path = criteo_file.expanduser() if criteo_file else data_root(data_dir) / "criteo" / "train.txt"
    if not path.is_file():
        raise UserError(
            f"Criteo's click log is not there: looked for {path}. Download it from {' or '.join(ADDRESSES)}, unpack "
            "it and give its train.txt as --criteo-file, or use --dataset synthetic, which needs no files."
        )
    return path
