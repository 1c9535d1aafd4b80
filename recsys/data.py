"""Click logs by name."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UserError
from recsys.datasets.adult import read_adult
from recsys.datasets.criteo import find_criteo, read_criteo
from recsys.datasets.criteo_splits import SPLITS, read_fixed_split
from recsys.datasets.movielens import read_movielens
from recsys.datasets.own import OwnTable, read_own
from recsys.datasets.synthetic import read_synthetic
from recsys.log.clicks import ClickData
from recsys.options import OWN

OWN_COUNT = 2  # a category that no other row has teaches nothing
DATASETS = ("synthetic", "adult", "ml-100k", "ml-1m", "criteo", *SPLITS)


def load_clicks(
    dataset: str,
    data_dir: Path | None = None,
    *,
    seed: int = 42,
    rows: int | None = None,
    criteo_file: Path | None = None,
    min_count: int | None = None,
    binning: str | None = None,
    own: OwnTable | None = None,
) -> ClickData:
    """Read a click log. The first call prepares it in the cache; later ones find it there.

    Args:
        dataset: One of `DATASETS`.
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        seed: Decides the random split; Criteo_x1 and _x4 have fixed parts. The published runs used 42.
        rows: Size of the synthetic log (40,000 if None); else the number of lines to read of each file (None: all).
        criteo_file: Any file in Kaggle's format, in place of `criteo/train.txt` below the data root.
        min_count: A category seen less often shares id 0. None: 10 in the logs of Criteo's format, 2 in a user's table;
            in the others every category counts.
        binning: Of the counts of Criteo's format: "ln2" (None), as the published runs' code does, "log2", as Criteo_x4
            describes it, or "quantile".
        own: The user's table, if `dataset` is "own".

    Raises:
        UserError: an unknown name or option, or a file that is missing, unreadable or not of the format.
    """
    if dataset not in DATASETS and own is None:
        raise UserError(f"--dataset {dataset}: no such data set. There are {', '.join(DATASETS)}.")
    if rows is not None and rows < 10:
        raise UserError(f"--rows {rows}: too few for a training, validation and test part. Give 10 or more.")
    min_count, binning = counting(dataset, min_count, binning)
    if dataset == "adult":
        return read_adult(data_dir, seed=seed, limit=rows)
    if dataset.startswith("ml-"):
        return read_movielens(dataset, data_dir, seed=seed, limit=rows)
    if own is not None:
        return read_own(own, seed=seed, min_count=min_count, limit=rows)
    if dataset == "synthetic":
        return read_synthetic(rows, seed=seed, min_count=min_count, binning=binning)
    if dataset in SPLITS:
        return read_fixed_split(dataset, data_dir, min_count=min_count, binning=binning, limit=rows)
    path = find_criteo(data_dir, criteo_file)
    return read_criteo(path, seed=seed, min_count=min_count, binning=binning, limit=rows)


def counting(dataset: str, min_count: int | None, binning: str | None) -> tuple[int, str]:
    """How often a category must be seen, and how counts become categories, on a data set.

    Raises:
        UserError: the data set leaves no choice.
    """
    if min_count is not None and min_count < 1:
        raise UserError(f"--min-count {min_count}: should be 1 or more.")
    counts = dataset in ("synthetic", "criteo", *SPLITS)
    if min_count is not None and not counts and dataset != OWN:
        raise UserError(f"--min-count {min_count}: on {dataset} every category has an id. Leave the option out.")
    if binning is not None and (not counts or dataset == "criteo_x1"):
        raise UserError(
            f"--binning {binning}: {dataset} has no counts, and its numbers, if any, are binned by quantiles. Leave "
            "the option out."
        )
    return min_count or (OWN_COUNT if dataset == OWN else 10), binning or "ln2"
