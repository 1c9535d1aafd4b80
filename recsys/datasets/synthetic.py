"""The synthetic click log, ready to train on: written to the cache once, then read like Criteo's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.data import cache_dir
from harness.data.cache import make_once
from recsys.datasets.criteo import read_criteo
from recsys.datasets.teacher import ROWS, write_log
from recsys.log.blocks import NO_SPACE
from recsys.log.clicks import ClickData
from recsys.log.formats import PARTS, Source
from recsys.log.prepare import split

VERSION = 1  # of the teacher; increase it when the drawn log changes
LOG_SEED = 0  # of the teacher and its log: the same whatever seed a run has


def read_synthetic(rows: int | None, *, seed: int, min_count: int, binning: str) -> ClickData:
    """The synthetic log with its best possible test AUC: `rows` rows (None: 40,000), split 80/10/10 by `seed`."""
    from sklearn.metrics import roc_auc_score

    rows = ROWS if rows is None else rows
    folder = _written(rows)
    log = read_criteo(folder / "train.txt", "synthetic", seed=seed, min_count=min_count, binning=binning)
    in_test = split(rows, Source(folder).shares, seed) == PARTS.index("test")
    chance = np.load(folder / "teacher.npy")[in_test]
    return replace(log, best_auc=float(roc_auc_score(log.test.labels.numpy(), chance)))


def _written(rows: int) -> Path:
    """The folder with the log's text and the teacher's probabilities, which are written if they are not there."""
    folder = cache_dir() / "recsys" / f"synthetic-log-v{VERSION}-{rows}"

    def write(partial: Path) -> None:
        np.save(partial / "teacher.npy", write_log(partial / "train.txt", rows, LOG_SEED))

    return make_once(folder, write, NO_SPACE)
