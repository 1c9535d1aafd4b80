"""Criteo_x1 and Criteo_x4: the Criteo log in fixed parts, as the BARS benchmark uses it.

Each is three files with a header: `train.csv`, `valid.csv` and `test.csv`. x4 (8:1:1, from the AutoInt paper) holds the
values of the Kaggle file. x1 (7:2:1, from the AFN paper) holds numbered categories, and numbers scaled to 0..1 instead
of the counts; they are binned by quantiles of the training rows. Categories are counted in the training rows only.
Source: the data sets' pages, huggingface.co/datasets/reczoo.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from harness.data import data_root
from harness.errors import UserError
from recsys.datasets.criteo import INTEGERS, criteo_layout
from recsys.log.cache import open_log
from recsys.log.clicks import ClickData
from recsys.log.formats import RowFormat, Rule, Source

FILES = ("train.csv", "valid.csv", "test.csv")
SAMPLE = 500_000_000  # bytes; larger files must be the published ones, smaller ones are samples
SHARES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class FixedSplit:
    """A published split."""

    title: str
    address: str
    md5: tuple[str, str, str]  # of the files
    rows: tuple[int, int, int]


SPLITS = {
    "criteo_x1": FixedSplit(
        title="Criteo_x1",
        address="https://huggingface.co/datasets/reczoo/Criteo_x1/resolve/4ecadde5eb8473e6ed6c570d9fb57e71079c0ef4/Criteo_x1.zip",
        md5=(
            "30b89c1c7213013b92df52ec44f52dc5",
            "f73c71fb3c4f66b6ebdfa032646bea72",
            "2c48b26e84c04a69b948082edae46f8c",
        ),
        rows=(33_003_326, 8_250_124, 4_587_167),
    ),
    "criteo_x4": FixedSplit(
        title="Criteo_x4",
        address="https://huggingface.co/datasets/reczoo/Criteo_x4/resolve/2582e812efc2f8405221900548591d0ddd89f727/Criteo_x4.zip",
        md5=(
            "4a53bb7cbc0e4ee25f9d6a73ed824b1a",
            "fba5428b22895016e790e2dec623cb56",
            "cfc37da0d75c4d2d8778e76997df2976",
        ),
        rows=(36_672_493, 4_584_062, 4_584_062),
    ),
}


def split_layout(name: str, binning: str) -> RowFormat:
    """The lines of the files; each file's header gives the order of its columns."""
    layout = criteo_layout(binning)
    scaled = name == "criteo_x1"
    fields = tuple((field, Rule.QUANTILE if scaled and field in INTEGERS else rule) for field, rule in layout.fields)
    return replace(layout, separator=",", header=True, fields=fields, clicks=("1", "1.0"), misses=("0", "0.0"))


def read_fixed_split(
    name: str, data_dir: Path | None, *, min_count: int, binning: str, limit: int | None = None
) -> ClickData:
    """A log in fixed parts, from the folder `criteo_x1` or `criteo_x4` below the data root.

    Files above 500 MB must have the published md5 and number of rows. Smaller ones are samples, which are not checked.

    Raises:
        UserError: a file is missing, is not the published one, or has another format.
    """
    published = SPLITS[name]
    folder = data_root(data_dir) / name
    paths = [folder / file for file in FILES]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{published.title} is not there: looked for {', '.join(missing)} in {folder}. Download "
            f"{published.address} and unpack it there, or use --dataset synthetic, which needs no files."
        )
    log = open_log(
        name,
        [Source(path, shares) for path, shares in zip(paths, SHARES, strict=True)],
        split_layout(name, binning),
        seed=0,
        min_count=min_count,
        count_all=False,
        limit=limit,
        check=lambda: _check_md5(paths, published),
    )
    for path, part, rows in zip(paths, (log.train, log.val, log.test), published.rows, strict=True):
        if limit is None and path.stat().st_size > SAMPLE and len(part) != rows:
            raise UserError(f"{path} gave {len(part)} rows where the published file has {rows}. {_WAY_OUT}.")
    return log


_WAY_OUT = "Unpack the published archive once more"


def _check_md5(paths: list[Path], published: FixedSplit) -> None:
    """Raise unless all files, samples excepted, are the published ones."""
    for path, md5 in zip(paths, published.md5, strict=True):
        if path.stat().st_size > SAMPLE:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "md5").hexdigest()
            if found != md5:
                raise UserError(f"{path} is not the published file: its md5 is {found}, not {md5}. {_WAY_OUT}.")
