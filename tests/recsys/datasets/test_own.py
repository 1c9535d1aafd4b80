"""A table of one's own: read as Python's csv module reads it, its columns found or said, refused with their names."""

import csv
import json
import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import torch

from harness.errors import UserError
from recsys.data import load_clicks
from recsys.datasets.own import OwnTable, own_layout
from recsys.log.formats import Rule
from recsys.predict.file import predict_file
from recsys.predict.saved import load_run
from tests.recsys.raw_logs import vocabularies
from tests.recsys.runs import main, options

CPU = torch.device("cpu")
NAMES = ["id", "clicked", "the shop", "price", "user_id", "member"]
SHOPS = ["corner, old", 'the "best"', "größer", "", "  plain "]


def table_rows(count: int, seed: int = 0) -> list[list[str]]:
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        price = draw.choice(["", str(draw.uniform(0, 9)), str(draw.randint(0, 9))])
        user, member = str(draw.randint(1, 9)), draw.choice(["true", "false"])
        rows.append([str(number), str(draw.randint(0, 1)), draw.choice(SHOPS), price, user, member])
    return rows


def write_table(path: Path, rows: list[list[str]], names: list[str] | None = None, **dialect) -> Path:
    with open(path, "w", newline="", encoding=dialect.pop("encoding", "utf-8")) as file:
        csv.writer(file, **dialect).writerows([names or NAMES, *rows])
    return path


def own(path: Path, **said) -> OwnTable:
    return OwnTable(path=path, **({"label": "clicked"} | said))


@pytest.fixture
def mine(tmp_path):
    return write_table(tmp_path / "mine.csv", table_rows(200))


def all_ids(log) -> list[list[int]]:
    return sorted(torch.cat([part.fields for part in (log.train, log.val, log.test)]).tolist())


def test_what_columns_hold_is_found_and_printed(mine, capsys):
    log = load_clicks("own", own=own(mine, ignored=("id",)))
    rules = {field.name: field.rule for field in log.encoder.fields}
    assert rules == {
        "the shop": Rule.CATEGORY,
        "price": Rule.QUANTILE,
        "user_id": Rule.CATEGORY,
        "member": Rule.CATEGORY,
    }
    said = capsys.readouterr().err
    assert "200 rows; clicked 1 is a click (" in said
    assert "numbers: price; categories: the shop, user_id, member; left out: id" in said
    assert said.count("\n") == 1


def test_categories_are_those_that_csv_reads_without_the_blanks_around_them(mine):
    log = load_clicks("own", own=own(mine), min_count=1)
    with open(mine, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    place = log.field_names.index("the shop")
    (known,) = vocabularies([[row["the shop"].strip()] for row in rows], 1)
    assert log.field_dims[place] == len(known) + 1
    lines = [["0", "1", shop, "1", "1", "true"] for shop in SHOPS]
    write_table(mine.with_name("new.csv"), lines)
    ids = log.encoder.encode(mine.with_name("new.csv").read_text().splitlines())[:, place].tolist()
    assert len(set(ids)) == len(SHOPS)
    assert 0 not in ids


@pytest.mark.parametrize("dialect", [
    {"delimiter": ";"}, {"delimiter": "\t"}, {"delimiter": "|"}, {"quoting": csv.QUOTE_ALL},
    {"encoding": "utf-8-sig"}, {"lineterminator": "\n"}, {"quoting": csv.QUOTE_NONNUMERIC},
])  # fmt: skip
def test_the_same_table_in_another_dialect_is_the_same_log(mine, tmp_path, dialect):
    other = write_table(tmp_path / "other.csv", table_rows(200), **dialect)
    logs = [load_clicks("own", own=own(path, ignored=("id",))) for path in (mine, other)]
    assert all_ids(logs[0]) == all_ids(logs[1])
    assert logs[0].encoder.fingerprint == logs[1].encoder.fingerprint


def test_a_parquet_file_gives_the_log_of_its_csv(mine, tmp_path):
    frame = pl.read_csv(mine, schema_overrides={"the shop": pl.String})
    frame.write_parquet(tmp_path / "mine.parquet", row_group_size=30)
    logs = [load_clicks("own", own=own(path, ignored=("id",))) for path in (mine, tmp_path / "mine.parquet")]
    assert all_ids(logs[0]) == all_ids(logs[1])
    assert logs[0].encoder.fingerprint == logs[1].encoder.fingerprint


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_durations_of_a_parquet_file_are_numbers_of_nanoseconds_whatever_its_unit(tmp_path, unit):
    spans = [timedelta(days=-1), timedelta(milliseconds=1), timedelta(seconds=2, milliseconds=5), None] * 50
    frame = pl.DataFrame({"clicked": [0, 1, 1, 0] * 50, "span": pl.Series(spans, dtype=pl.Duration(unit))})
    frame.write_parquet(tmp_path / "t.parquet")
    numbers = ["-86400000000000", "1000000", "2005000000", ""] * 50
    clicks = ["0", "1", "1", "0"] * 50
    write_table(tmp_path / "t.csv", [list(row) for row in zip(clicks, numbers, strict=True)], ["clicked", "span"])
    logs = [load_clicks("own", own=own(tmp_path / f"t.{suffix}")) for suffix in ("parquet", "csv")]
    assert [field.rule for field in logs[0].encoder.fields] == [Rule.QUANTILE]
    assert logs[0].encoder.fingerprint == logs[1].encoder.fingerprint
    assert all_ids(logs[0]) == all_ids(logs[1])


@pytest.mark.parametrize("line", [1, 32])
@pytest.mark.parametrize(
    ("encoding", "found"), [("latin-1", "byte 0xe9, which is not UTF-8"), ("utf-16-le", "a zero byte")]
)
def test_another_encoding_is_refused_where_it_is_found(tmp_path, line, encoding, found):
    lines = ["shop,clicked", *(f"{number % 3},{number % 2}" for number in range(60))]
    lines[line - 1] = "é" + lines[line - 1]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding=encoding)
    where = line if encoding == "latin-1" else 1
    with pytest.raises(UserError, match=rf"t\.csv, line {where}: .*{found}.*Save the table as UTF-8"):
        own_layout(own(tmp_path / "t.csv"))


def test_columns_are_what_the_user_says(mine):
    layout, _ = own_layout(own(mine, numbers=("user_id",), categories=("price",), ignored=("id", "member")))
    assert dict(layout.fields) == {"the shop": Rule.CATEGORY, "price": Rule.CATEGORY, "user_id": Rule.QUANTILE}


@pytest.mark.parametrize(("values", "click"), [
    (("0", "1"), "1"), (("0.0", "1.0"), "1.0"), (("-1", "1"), "1"), (("No", "Yes"), "Yes"), (("TRUE", "FALSE"), "TRUE"),
])  # fmt: skip
def test_usual_labels_need_no_word(tmp_path, values, click):
    rows = [[row[0], values[number % 2], *row[2:]] for number, row in enumerate(table_rows(60))]
    layout, _ = own_layout(own(write_table(tmp_path / "t.csv", rows)))
    assert layout.clicks == (click,)
    assert set(layout.misses) == set(values) - {click}


def test_several_values_may_mean_a_click(tmp_path):
    rows = [[row[0], str(1 + number % 5), *row[2:]] for number, row in enumerate(table_rows(60))]
    path = write_table(tmp_path / "t.csv", rows)
    with pytest.raises(UserError, match=r"has the values .*3 \(12 rows\).*Say which of them mean a click: --clicks"):
        own_layout(own(path))
    log = load_clicks("own", own=own(path, clicks=("4", "5")))
    assert sum(int(part.labels.sum()) for part in (log.train, log.val, log.test)) == 24


def changed(place: int, values: list[str], names: list[str] | None = None):
    def write(path: Path) -> Path:
        rows = table_rows(60)
        for row, value in zip(rows, values * 60, strict=False):
            row[place] = value
        return write_table(path, rows, names)

    return write


@pytest.mark.parametrize(("write", "said", "message"), [
    (changed(0, ["1"]), {"label": "clickd"}, "--label clickd: no such column.*names id, clicked, the shop"),
    (changed(0, ["1"]), {"ignored": ("x", "y")}, "--ignore x, y: no such column"),
    (changed(0, ["1"], ["a", "clicked", "a", "b", "c", "d"]), {}, "names a, clicked, a, b.*and a more than once"),
    (changed(1, ["1"]), {}, r"has the values 1 \(60 rows\)\. There should be rows with a click and rows without"),
    (changed(1, ["0", "1"]), {"clicks": ("2",)}, r"--clicks 2: .*has the values 0 \(30 rows\), 1 \(30 rows\)"),
    (changed(3, ["1,5", "2,25"]), {}, "price has 60 values.*'1,5'.*with a decimal point and without commas"),
    (changed(3, ["1.5"] * 19 + ["-"]), {}, "price has 60 values, and 3 are not numbers, such as '-'.*--categories"),
    (changed(3, ["few"]), {"numbers": ("price",)}, "60 are not numbers, such as 'few'.*Leave the column out of"),
    (lambda path: write_table(path, []), {}, "has no rows"),
    (lambda path: (path.write_text("") and path) or path, {}, "has no rows"),
    (lambda path: (path.write_text("a,clicked\n1,0,\n") and path) or path, {}, "has no rows; line 2 .*3 columns"),
    (lambda path: (path.write_text('"a\nb",clicked\n1,0\n') and path) or path, {}, "1: this is not a header .*a quote"),
    (lambda path: (path.write_bytes(b"a\rb,clicked\n1,0\n") and path) or path, {}, "1: this is not a header"),
    (lambda path: path.parent, {}, "cannot read .*: Is a directory"),
    (lambda path: path, {}, "cannot read .*: No such file"),
])  # fmt: skip
def test_a_table_that_is_not_what_is_said_is_refused_by_name(tmp_path, write, said, message):
    with pytest.raises(UserError, match=message):
        load_clicks("own", own=own(write(tmp_path / "t.csv"), **said))


def test_a_parquet_file_that_is_cut_short_or_nested_is_refused(mine, tmp_path):
    path = tmp_path / "t.parquet"
    frame = pl.DataFrame({"clicked": [0, 1] * 30, "tags": [["a"], ["b", "c"]] * 30, "age": range(60)})
    frame.write_parquet(path)
    with pytest.raises(UserError, match=r"tags holds lists.*--ignore tags"):
        load_clicks("own", own=own(path))
    assert load_clicks("own", own=own(path, ignored=("tags",))).field_names == ("age",)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"t\.parquet cannot be read as Parquet"):
        load_clicks("own", own=own(path))


def test_a_nameless_column_and_an_empty_one_are_left_out_aloud(tmp_path):
    path = changed(3, [""], ["", "clicked", "shop", "price", "user", "member"])(tmp_path / "t.csv")
    layout, words = own_layout(own(path))
    assert layout.names == ("shop", "user", "member")
    assert "left out: a column without a name, price" in words


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    path = write_table(folder / "mine.csv", table_rows(300))
    how = {"epochs": 2, "device": "cpu", "batch": 64, "ignore": ("id",)}
    main(options(table=path, label="clicked", out=folder / "run", **how))
    return folder / "run"


def predictions(run, rows: Path) -> list[float]:
    model, encoder, _ = load_run(run, CPU)
    predict_file(model, encoder, rows, rows.with_suffix(".out"), CPU)
    return [float(line) for line in rows.with_suffix(".out").read_text().splitlines()]


def test_rows_to_predict_go_by_the_names_of_their_columns(run, tmp_path):
    rows = table_rows(40, seed=5)
    usual = predictions(run, write_table(tmp_path / "usual.csv", rows))
    assert len(usual) == 40
    assert len(set(usual)) > 1
    order = [5, 3, 2, 4]  # without id and label, in another order
    other = [[row[place] for place in order] for row in rows]
    names = [NAMES[place].upper() for place in order]
    assert predictions(run, write_table(tmp_path / "other.csv", other, names, delimiter=";")) == usual
    frame = pl.read_csv(tmp_path / "usual.csv")
    frame.write_parquet(tmp_path / "rows.parquet")
    assert predictions(run, tmp_path / "rows.parquet") == usual


@pytest.mark.parametrize("label", ["", "?", "maybe"])
def test_the_label_of_rows_to_predict_is_not_looked_at(run, tmp_path, label):
    rows = table_rows(20, seed=6)
    usual = predictions(run, write_table(tmp_path / "usual.csv", rows))
    blank = [[row[0], label, *row[2:]] for row in rows]
    assert predictions(run, write_table(tmp_path / "blank.csv", blank)) == usual


def test_rows_without_a_column_are_refused_with_the_layout(run, tmp_path):
    rows = [row[:3] for row in table_rows(5)]
    with pytest.raises(
        UserError, match=r"not so for price, user_id, member\. It names id, clicked, the shop, and there"
    ):
        predictions(run, write_table(tmp_path / "short.csv", rows, NAMES[:3]))


def test_a_run_says_what_table_it_was_trained_on_and_resumes_from_a_moved_file(run, tmp_path):
    result = json.loads((run / "result.json").read_text())
    assert (result["dataset"], result["config"]["label"]) == ("own", "clicked")
    moved = tmp_path / "moved.csv"
    moved.write_bytes((run.parent / "mine.csv").read_bytes())
    config = options(table=moved, label="clicked", out=run, epochs=2, device="cpu", batch=64, ignore=("id",))
    main(replace(config, resume=True))
    assert json.loads((run / "result.json").read_text())["metrics"] == result["metrics"]
