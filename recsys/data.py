"""Click logs by name."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UserError
from recsys.clicks import ClickData
from recsys.criteo import find_criteo, read_criteo
from recsys.embedded import read_synthetic

DATASETS = ("synthetic", "criteo")


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
    """Read a click log; the first call prepares it, later ones find it in the cache."""
    if dataset == "synthetic":
        return read_synthetic(rows, seed=seed, min_count=min_count, binning=binning)
    path = find_criteo(data_dir, criteo_file)
    return read_criteo(path, seed=seed, min_count=min_count, binning=binning, limit=rows)
