"""Click logs by name, and the options that say which one and how its values become categories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.processes import current
from recsys.datasets.adult import read_adult
from recsys.datasets.criteo import find_criteo, read_criteo
from recsys.datasets.criteo_splits import SPLITS, read_fixed_split
from recsys.datasets.movielens import read_movielens
from recsys.datasets.own import OWN, OwnTable, read_own
from recsys.datasets.synthetic import read_synthetic
from recsys.log.cache import read_log
from recsys.log.clicks import ClickData

COUNT, BINNING = 10, "ln2"  # as in the published runs
OWN_COUNT = 2  # nothing can be learned from a category that occurs once
DATASETS = ("synthetic", "adult", "ml-100k", "ml-1m", "criteo", *SPLITS)
ABOUT_TABLE = ("label", "clicks", "numbers", "categories", "ignore")  # options that say what a table holds


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which click log, and how its values become categories."""

    dataset: str = "synthetic"
    """synthetic, which needs no files, adult, ml-100k, ml-1m, criteo, criteo_x1 or criteo_x4."""
    table: Path | None = None
    """Your own table instead of --dataset: a CSV or Parquet file with named columns."""
    label: str | None = None
    """The column of --table with the clicks."""
    clicks: tuple[str, ...] = ()
    """Values of --label that mean a click; if left out, 1, true, yes, t or y."""
    numbers: tuple[str, ...] = ()
    """Columns of --table that hold numbers; if left out, their values decide."""
    categories: tuple[str, ...] = ()
    """Columns of --table that hold categories, such as codes made of digits; if left out, their values decide."""
    ignore: tuple[str, ...] = ()
    """Columns of --table to ignore."""
    rows: int | None = None
    """Use the first rows only. For the synthetic log: rows to draw."""
    criteo_file: Path | None = None
    """Path of Criteo's train.txt, if it is not below --data-dir."""
    min_count: int | None = None
    """Categories seen less often share one id; if left out, 10 in logs of Criteo's format, and 2 in a --table."""
    binning: str | None = None
    """How the counts of Criteo's format become categories: ln2, log2 or quantile; if left out, ln2."""

    @property
    def source(self) -> str:
        """The data set's name: "own" for a table."""
        return self.dataset if self.table is None else OWN

    def check_data(self) -> None:
        """Raise `UserError` for options that exclude each other, before anything is read."""
        for option, value in {"rows": self.rows, "min-count": self.min_count}.items():
            if value is not None and value < 1:
                raise UserError(f"--{option} {value}: give at least 1.")
        if self.criteo_file is not None and (self.dataset != "criteo" or self.table is not None):
            found = f"--dataset {self.dataset}" if self.table is None else f"--table {self.table}"
            raise UserError(
                f"--criteo-file {self.criteo_file}: this run takes {found}. Add --dataset criteo, or leave the file "
                "out."
            )
        if self.table is not None:
            self._check_table(self.table)
        elif given := [name for name in ABOUT_TABLE if getattr(self, name)]:
            raise UserError(f"--{given[0]}: {_ONLY_A_TABLE}")
        elif self.dataset == OWN:
            raise UserError(f"--dataset {OWN}: {_ONLY_A_TABLE}")

    def _check_table(self, table: Path) -> None:
        """Raise `UserError` if a table has no label, or two options name the same column."""
        if self.dataset not in ("synthetic", OWN):
            raise UserError(f"--table {table}: this run takes --dataset {self.dataset}. Leave out one of them.")
        if not self.label:
            raise UserError(f"--table {table}: which of its columns holds the clicks? Add --label COLUMN.")
        roles = {"numbers": self.numbers, "categories": self.categories, "ignore": self.ignore, "label": (self.label,)}
        known: dict[str, str] = {}
        for option, columns in roles.items():
            for column in columns:
                if known.setdefault(column, option) != option:
                    raise UserError(f"--{known[column]} {column}: --{option} names it as well. Leave out one of them.")

    def check_counting(self, typed: frozenset[str]) -> None:
        """Raise `UserError` for options about counting that were typed and have no effect on the data set."""
        said = {name: getattr(self, name) if name in typed else None for name in ("min_count", "binning")}
        check_effect(self.source, **said)

    def load(self, data_dir: Path | None = None) -> ClickData:
        """The click log that these options name; `data_dir` as for `load_clicks`."""
        own = None
        if self.table is not None:
            said = {"clicks": self.clicks, "numbers": self.numbers, "categories": self.categories}
            own = OwnTable(path=self.table, label=self.label or "", ignored=self.ignore, **said)
        return load_clicks(
            self.source,
            data_dir,
            rows=self.rows,
            criteo_file=self.criteo_file,
            min_count=self.min_count,
            binning=self.binning,
            own=own,
        )

    def data_settings(self) -> dict[str, Any]:
        """All of these options that decide what is read."""
        min_count, binning = counting(self.source, self.min_count, self.binning)
        settings: dict[str, Any] = {"dataset": self.source, "rows": self.rows, "criteo_file": self.criteo_file}
        settings |= {"min_count": min_count, "binning": binning}
        if self.table is not None:
            settings["table"] = self.table
            settings |= {name: list(getattr(self, name)) for name in ("clicks", "numbers", "categories", "ignore")}
            settings["label"] = self.label
        return settings


_ONLY_A_TABLE = (
    "this is about a table of your own. Add --table FILE --label COLUMN, a CSV or Parquet file with named columns."
)


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


def load_once(options: DataOptions, data_dir: Path | None = None) -> ClickData:
    """The click log of a training: the first process reads it, and the others map the same tables into memory.

    A process on another machine, which has another cache, reads the log itself.

    Raises:
        UserError: as `load_clicks`, in every process.
    """
    mine: list[ClickData] = []

    def read() -> tuple[Path, float | None]:
        mine.append(options.load(data_dir))
        return mine[0].folder, mine[0].best_auc

    folder, best_auc = current().once(read)
    if mine:
        return mine[0]
    if not folder.is_dir():
        return options.load(data_dir)
    return replace(read_log(options.source, folder, check=False), best_auc=best_auc)


def counting(dataset: str, min_count: int | None, binning: str | None) -> tuple[int, str]:
    """How often a category must occur, and how counts become categories, with the defaults of a data set.

    Raises:
        UserError: `min_count` is not positive; or one differs from the default where it has no effect.
    """
    if min_count is not None and min_count < 1:
        raise UserError(f"--min-count {min_count}: should be 1 or more.")
    check_effect(dataset, None if min_count == COUNT else min_count, None if binning == BINNING else binning)
    return min_count or (OWN_COUNT if dataset == OWN else COUNT), binning or BINNING


def check_effect(dataset: str, min_count: int | None, binning: str | None) -> None:
    """Raise `UserError` for a number or a rule that has no effect on a data set."""
    counts = dataset in ("synthetic", "criteo", *SPLITS)
    if min_count is not None and not counts and dataset != OWN:
        raise UserError(f"--min-count {min_count}: on {dataset} every category has an id. Leave the option out.")
    if binning is not None and (not counts or dataset == "criteo_x1"):
        raise UserError(
            f"--binning {binning}: {dataset} has no counts, and its numbers, if any, are binned by quantiles. Leave "
            "the option out."
        )
