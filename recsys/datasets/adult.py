"""The Adult census table (UCI): does a person earn more than 50,000 a year? 6 numbers, 8 categories, `?` = missing.

Not a click log, but a real table of the same kind, small enough for a laptop. `adult.test` is the published test part;
a tenth of `adult.data`, drawn with the seed, is for validation. Numbers are binned by quantiles of the training rows,
and the vocabularies hold every value of the training rows.
"""

from __future__ import annotations

from pathlib import Path

from harness.data import RemoteFile, data_root, fetch
from recsys.log.cache import open_log
from recsys.log.clicks import ClickData
from recsys.log.formats import RowFormat, Rule, Source

NUMBERS = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
)
LAYOUT = RowFormat(
    separator=",",
    columns=COLUMNS,
    fields=tuple((name, Rule.QUANTILE if name in NUMBERS else Rule.CATEGORY) for name in COLUMNS[:-1]),
    label="income",
    clicks=(">50K", ">50K."),
    misses=("<=50K", "<=50K."),  # the test file ends its labels in a dot
    spaced=True,
    missing=("?",),
    comment="|",  # the test file begins with such a line
)
FOLDER = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult"
FILES = tuple(
    RemoteFile(f"adult/{name}", sha256=None, size=None, urls=(f"{FOLDER}/{name}",))
    for name in ("adult.data", "adult.test")
)


def read_adult(data_dir: Path | None, *, seed: int, limit: int | None = None) -> ClickData:
    """The table, found below the data root or downloaded; a "click" is an income above 50,000.

    Raises:
        UserError: a file is not found and not downloadable, or has another format.
    """
    train, test = fetch(FILES, data_root(data_dir), "Adult")
    sources = [Source(train, (0.9, 0.1, 0.0)), Source(test, (0.0, 0.0, 1.0))]
    return open_log("adult", sources, LAYOUT, seed=seed, min_count=1, count_all=False, limit=limit)
