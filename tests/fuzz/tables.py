"""Small valid tables: click logs in their published formats, a user's own, and rows to predict."""

import csv
import random
from pathlib import Path

import polars as pl
import torch

from harness.data import cache_dir
from recsys.data import load_clicks
from recsys.datasets.adult import COLUMNS, NUMBERS
from recsys.datasets.movielens import LAYOUT_100K
from recsys.datasets.own import OwnTable
from recsys.log.cache import open_log
from recsys.log.clicks import ClickData
from recsys.log.formats import Source
from recsys.predict.file import predict_file
from tests.fuzz.formats import Format
from tests.recsys.raw_logs import raw_rows, write_rows

ROWS = 60
CRITEO = ["label", *(f"I{number}" for number in range(1, 14)), *(f"C{number}" for number in range(1, 27))]


def read_log(log: ClickData) -> dict[str, object]:
    """What a log holds; every id lies in its field's table."""
    parts = {"train": log.train, "val": log.val, "test": log.test}
    found: dict[str, object] = {"dims": log.field_dims, "names": log.field_names, "encoder": log.encoder.fingerprint}
    for name, part in parts.items():
        fields, labels = part.fields.clone(), part.labels.clone()
        assert len(fields) == len(labels) > 0
        assert bool((fields >= 0).all() and (fields < torch.tensor(log.field_dims)).all())
        assert set(labels.tolist()) <= {0, 1}
        found[name] = fields, labels
    return found


def make_criteo(folder: Path, rng: random.Random) -> Path:
    return write_rows(folder / "train.txt", raw_rows(ROWS, rng.randrange(10**6)))


def read_criteo(path: Path) -> dict[str, object]:
    return read_log(load_clicks("criteo", criteo_file=path, min_count=2))


def make_splits(folder: Path, rng: random.Random) -> Path:
    for name in ("train", "valid", "test"):
        write_rows(folder / "criteo_x4" / f"{name}.csv", [CRITEO, *raw_rows(ROWS, rng.randrange(10**6))], ",")
    return folder


def read_splits(folder: Path) -> dict[str, object]:
    return read_log(load_clicks("criteo_x4", folder, min_count=2))


def census(rng: random.Random, dot: str = "") -> list[str]:
    words = {name: str(rng.randint(0, 90)) if name in NUMBERS else rng.choice(["a", "b-c", "?"]) for name in COLUMNS}
    return list((words | {"income": rng.choice(["<=50K", ">50K"]) + dot}).values())


def make_adult(folder: Path, rng: random.Random) -> Path:
    write_rows(folder / "adult" / "adult.data", [census(rng) for _ in range(ROWS)], ", ")
    write_rows(
        folder / "adult" / "adult.test", [["|1x3 Cross validator"], *(census(rng, ".") for _ in range(20))], ", "
    )
    return folder


def read_adult(folder: Path) -> dict[str, object]:
    return read_log(load_clicks("adult", folder))


def ratings(rng: random.Random) -> list[list[str]]:
    return [[str(rng.randint(1, top)) for top in (9, 20, 5, 10**9)] for _ in range(ROWS)]


def make_ratings(folder: Path, rng: random.Random) -> Path:
    return write_rows(folder / "u.data", ratings(rng))


def read_ratings(path: Path) -> dict[str, object]:
    return read_log(open_log("ml-100k", [Source(path)], LAYOUT_100K, seed=42, min_count=1, count_all=True))


def make_ratings_1m(folder: Path, rng: random.Random) -> Path:
    write_rows(folder / "ml-1m" / "ratings.dat", ratings(rng), "::")
    return folder


def read_ratings_1m(folder: Path) -> dict[str, object]:
    return read_log(load_clicks("ml-1m", folder))


def own_frame(rng: random.Random) -> pl.DataFrame:
    """A table with every kind of column; some values are missing."""
    kinds = {
        "clicked": lambda: rng.randint(0, 1),
        "age": lambda: rng.choice([None, rng.randint(1, 99)]),
        "price": lambda: rng.uniform(-5, 5),
        "shop": lambda: rng.choice([None, 'the "corner"', "a, b", "größer", "x"]),
        "member": lambda: rng.random() < 0.5,
        "user_id": lambda: rng.randint(1, 20),
    }
    return pl.DataFrame({name: [draw() for _ in range(ROWS)] for name, draw in kinds.items()}, strict=False)


def make_own_csv(folder: Path, rng: random.Random) -> Path:
    """The table as Python's `csv` writes it, with one of the usual separators."""
    frame, path = own_frame(rng), folder / "mine.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=rng.choice(",;\t|"))
        writer.writerow(frame.columns)
        writer.writerows(frame.iter_rows())
    return path


def make_own_parquet(folder: Path, rng: random.Random) -> Path:
    path = folder / "mine.parquet"
    own_frame(rng).write_parquet(path, compression=rng.choice(["zstd", "snappy", "uncompressed"]))
    return path


def read_own(path: Path) -> dict[str, object]:
    return read_log(load_clicks("own", own=OwnTable(path=path, label="clicked"), min_count=1))


class Chances(torch.nn.Module):
    """A model whose logit tells the categories of a row apart."""

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        return torch.cos(fields.float() * torch.arange(1.0, fields.shape[1] + 1)).mean(dim=1, keepdim=True)


def predicted(log: ClickData, rows: Path) -> list[str]:
    """What `recsys.predict` writes for a file of rows."""
    out = cache_dir() / "predictions.csv"
    found = predict_file(Chances(), log.encoder, rows, out, torch.device("cpu"))
    lines = out.read_text().splitlines()
    assert len(lines) == found.rows
    assert all(0 < float(line) < 1 for line in lines)
    return lines


def make_rows(folder: Path, rng: random.Random) -> Path:
    """A log, and rows of its kind with labels or without."""
    write_rows(folder / "train.txt", raw_rows(ROWS, 0))
    first = rng.randint(0, 1)
    write_rows(folder / "rows.txt", [row[first:] for row in raw_rows(12, rng.randrange(10**6))])
    return folder


def predict_rows(folder: Path) -> list[str]:
    return predicted(load_clicks("criteo", criteo_file=folder / "train.txt", min_count=2), folder / "rows.txt")


def make_own_rows(folder: Path, rng: random.Random) -> Path:
    """A table, and another one without its label."""
    make_own_csv(folder, rng)
    frame = own_frame(rng).drop("clicked").head(12)
    frame.write_parquet(folder / "rows") if rng.random() < 0.3 else frame.write_csv(folder / "rows")
    return folder


def predict_own_rows(folder: Path) -> list[str]:
    log = load_clicks("own", own=OwnTable(path=folder / "mine.csv", label="clicked"), min_count=1)
    return predicted(log, folder / "rows")


FORMATS = {
    "criteo": Format(make_criteo, read_criteo),
    "criteo-splits": Format(make_splits, read_splits),
    "adult": Format(make_adult, read_adult),
    "movielens-100k": Format(make_ratings, read_ratings),
    "movielens-1m": Format(make_ratings_1m, read_ratings_1m),
    "own-csv": Format(make_own_csv, read_own),
    "own-parquet": Format(make_own_parquet, read_own),
    "rows-to-predict": Format(make_rows, predict_rows, damage=("rows.txt",)),
    "own-rows-to-predict": Format(make_own_rows, predict_own_rows, damage=("rows",)),
}
