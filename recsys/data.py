"""Click logs by name."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UserError
from recsys.adult import read_adult
from recsys.clicks import ClickData
from recsys.criteo import find_criteo, read_criteo
from recsys.criteo_splits import SPLITS, read_fixed_split
from recsys.embedded import read_synthetic
from recsys.movielens import read_movielens

DATASETS = ("synthetic", "adult", "ml-100k", "ml-1m", "criteo", *SPLITS)


def load_clicks(
    dataset: str,
    data_dir: Path | None = None,
    *,
    seed: int = 42,
    rows: int | None = None,
    criteo_file: Path | None = None,
    min_count: int = 10,
    binning: str = "ln2",
) -> ClickData:
    """Read a click log. The first call prepares it in the cache; later ones find it there.

    Args:
        dataset: One of `DATASETS`.
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        seed: Decides the random split; Criteo_x1 and _x4 have fixed parts. The published runs used 42.
        rows: Size of the synthetic log (40,000 if None); else the number of lines to read of each file (None: all).
        criteo_file: Any file in Kaggle's format, in place of `criteo/train.txt` below the data root.
        min_count: In the logs of Criteo's format, a category seen less often shares id 0.
        binning: Of their counts: "ln2", as the published runs' code does, "log2", as Criteo_x4 describes it, or
            "quantile".

    Raises:
        UserError: an unknown name or option, or a file that is missing, unreadable or not of the format.
    """
    if dataset not in DATASETS:
        raise UserError(f"--dataset {dataset}: no such data set. There are {', '.join(DATASETS)}.")
    if rows is not None and rows < 10:
        raise UserError(f"--rows {rows}: too few for a training, validation and test part. Give 10 or more.")
    if dataset == "adult":
        return read_adult(data_dir, seed=seed, limit=rows)
    if dataset.startswith("ml-"):
        return read_movielens(dataset, data_dir, seed=seed, limit=rows)
    if min_count < 1:
        raise UserError(f"--min-count {min_count}: should be 1 or more.")
    if dataset == "synthetic":
        return read_synthetic(rows, seed=seed, min_count=min_count, binning=binning)
    if dataset in SPLITS:
        return read_fixed_split(dataset, data_dir, min_count=min_count, binning=binning, limit=rows)
    path = find_criteo(data_dir, criteo_file)
    return read_criteo(path, seed=seed, min_count=min_count, binning=binning, limit=rows)
