"""How fast a raw Criteo file becomes something to train on: this project's cache against torchfm's.

    python -m benchmarks.recsys_cache --rows 200000 --out results/benchmarks/recsys_cache.json

Both read the same file, count categories, merge those seen less than ten times, and write all rows' ids: torchfm to
LMDB, as the published runs did, this project to memory-mapped tables. The file is drawn by the teacher of
`recsys.datasets.teacher`, with vocabularies of Criteo's order of magnitude. Each contestant runs in a process of its
own, one after the other; loading libraries is not timed. The ratio is the median over rounds of the ratio within a
round; processor seconds add up what all threads of a contestant worked. Memory is the process's largest resident set,
which holds about 0.3 GB of libraries to begin with.
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.environment import save
from recsys.datasets.criteo import read_criteo
from recsys.datasets.teacher import write_log

# Values of a category field: a mixture of a few and of millions, 33 million in all.
CARDINALITIES = (
    *(1_000, 500, 10_000_000, 2_000_000, 300, 20, 10_000, 600, 3, 90_000, 5_000, 8_000_000, 3_000),
    *(30, 15_000, 5_000_000, 10, 5_000, 2_000, 4, 7_000_000, 20, 15, 300_000, 100, 140_000),
)
OURS, THEIRS = "this project", "torchfm, LMDB"
MIN_COUNT = 10
TARGET_RATIO = 5.0  # of rows per second to torchfm's
TARGET_MEMORY = 4.0  # GB, whatever the size of the file


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time the preparation of a raw Criteo file against torchfm's LMDB cache."""

    rows: int = 200_000
    """Rows of the file, about 240 bytes each."""
    rounds: int = 3
    """Runs of each contestant; shown are medians."""
    torchfm: bool = True
    """Run torchfm's side as well; it needs torchfm and lmdb."""
    folder: Path | None = None
    """Where the file and the caches go for the time of the benchmark; else the system's folder for temporary files."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""


def prepare_ours(raw: Path, folder: Path) -> int:
    """Prepare with this project; the number of rows."""
    os.environ["TINYDFA_CACHE"] = str(folder)
    log = read_criteo(raw, seed=42, min_count=MIN_COUNT, binning="ln2")
    return len(log.train) + len(log.val) + len(log.test)


def prepare_torchfm(raw: Path, folder: Path) -> int:
    """Prepare with torchfm; the number of rows."""
    from torchfm.dataset.criteo import CriteoDataset

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        return len(CriteoDataset(str(raw), str(folder / "lmdb"), rebuild_cache=True, min_threshold=MIN_COUNT))


def measure(prepare: Callable[[Path, Path], int], raw: Path) -> dict[str, float]:
    """Rows per second and peak memory in GB of one preparation; to be called in a fresh process.

    A small file is prepared first, so that libraries are loaded when the clock starts.
    """
    with tempfile.TemporaryDirectory(dir=raw.parent) as folder:
        write_log(Path(folder) / "small.txt", 1000, seed=2)
        prepare(Path(folder) / "small.txt", Path(folder))
    with tempfile.TemporaryDirectory(dir=raw.parent) as folder:
        start, worked = time.perf_counter(), time.process_time()
        rows = prepare(raw, Path(folder))
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
    memory = largest_resident_set() / 1e9
    return {"rows": rows, "seconds": seconds, "worked": worked, "rows_per_second": rows / seconds, "memory": memory}


def largest_resident_set() -> int:
    """Bytes that this process has held in memory at most.

    Where Linux tells, it is of this program alone: `getrusage` begins with what the process held that started it.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_own_process(prepare: Callable[[Path, Path], int], raw: Path) -> dict[str, float]:
    """`measure`, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, prepare, raw).result()


def main(config: Config) -> None:
    """Draw the file, run the contestants in turn, print the table."""
    contestants = {OURS: prepare_ours} | ({THEIRS: prepare_torchfm} if config.torchfm else {})
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        raw = Path(folder) / "train.txt"
        write_log(raw, config.rows, seed=1, sizes=CARDINALITIES)
        size = raw.stat().st_size / 1e9
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
        for _ in range(config.rounds):
            for name, prepare in contestants.items():
                runs[name].append(in_own_process(prepare, raw))
    rows = [_row(name, size, runs) for name in contestants]
    _print(rows, f"{config.rows:,} rows of raw Criteo format, {size:.2f} GB")
    if config.out is not None:
        save(config.out, "cpu", rows)


def _row(name: str, size: float, runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """What is reported of a contestant."""
    mine = runs[name]
    others = runs.get(THEIRS)
    ratio = None
    if others is not None:
        pairs = zip(mine, others, strict=True)
        ratio = round(statistics.median(a["rows_per_second"] / b["rows_per_second"] for a, b in pairs), 2)
    return {
        "contestant": name,
        "rows": int(mine[0]["rows"]),
        "GB of text": round(size, 3),
        "seconds": round(statistics.median(run["seconds"] for run in mine), 2),
        "processor seconds": round(statistics.median(run["worked"] for run in mine), 2),
        "rows per second": round(statistics.median(run["rows_per_second"] for run in mine)),
        "ratio to torchfm": ratio,
        "target": TARGET_RATIO if ratio is not None and name == OURS else None,
        "peak memory, GB": round(max(run["memory"] for run in mine), 2),
        "limit, GB": TARGET_MEMORY if name == OURS else None,
    }


def _print(rows: list[dict[str, Any]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for heading in rows[0]:
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=140).print(table)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
