"""Lines of text as columns: what Python's csv module and float say, whatever else is in the block."""

import codecs
import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from recsys.data import load_clicks
from recsys.datasets.adult import LAYOUT
from recsys.datasets.criteo import criteo_layout
from recsys.log.encoder import Encoder
from recsys.log.formats import RowFormat, Rule
from recsys.log.rows import parse
from recsys.log.text import Block
from recsys.predict.rows import encode_file
from tests.recsys.raw_logs import raw_rows, write_rows

NUMBERS = replace(
    criteo_layout("quantile"), columns=("I1", "C1", "label"), fields=(("I1", Rule.QUANTILE), ("C1", Rule.CATEGORY))
)
SPELLINGS = [
    " 12", "12 ", "  ", " ", "", "+5", "1e5", ".5", "5.", "-0", "00012", "1E-3", " -7 ", "1_000", "0x10", "inf", "nan",
    "-inf", "1e400", "-", "1d5", "1,5", "--1", "1e", "twelve", "१२", '"12"', '" 12"', '"', '1"2',
]  # fmt: skip
NEIGHBOURS = {
    "a short line": "1",
    "a quote": '1\t"x"\t0',
    "a blank line": "",
    "a long line": "1\t2\t3\t4",
    "no UTF-8": "1\t\udcff\t0",
}


def block(*lines: str) -> Block:
    return Block("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"), 1)


def float_or_none(text: str) -> float | None:
    """What a number's text means to Python, whose `float` also takes underscores and digits of other scripts."""
    try:
        value = float(text) if text.isascii() and "_" not in text else float("nan")
    except ValueError:
        return None
    return value if np.isfinite(value) else None


@pytest.mark.parametrize("text", SPELLINGS)
@pytest.mark.parametrize("neighbour", [None, *NEIGHBOURS])
def test_a_number_means_the_same_whatever_its_neighbours_are(text, neighbour):
    others = [NEIGHBOURS[neighbour]] if neighbour else []
    rows = parse(block(f"{text}\tc\t1", *others), NUMBERS)
    try:
        (plain, *rest) = next(csv.reader([text + "\tc\t1"], delimiter="\t", strict=True))
    except csv.Error:
        plain, rest = "malformed", ["c", "1"]
    expected = None if not plain.strip() else float_or_none(plain)
    good = (not plain.strip() or expected is not None) and len(rest) == 2
    assert (1 in rows.lines.tolist()) == good
    assert (1 in [bad.line for bad in rows.malformed]) == (not good)
    if good:
        assert rows.frame["I1"][0] == expected


@pytest.mark.parametrize("text", [" a", "a ", " ", "", "a b", '"a"', '"a\tb"', '"say ""a"""', 'a"b', "\u00a0a"])
@pytest.mark.parametrize("neighbour", [None, *NEIGHBOURS])
def test_a_text_is_what_csv_reads_whatever_its_neighbours_are(text, neighbour):
    others = [NEIGHBOURS[neighbour]] if neighbour else []
    rows = parse(block(f"3\t{text}\t1", *others), NUMBERS)
    expected = next(csv.reader([f"3\t{text}\t1"], delimiter="\t"))[1]
    assert rows.frame["C1"][0] == expected


@pytest.mark.parametrize(("line", "reason"), [
    ('3\t"open\t1', "a quote is not closed"),
    ('3\t"a" b\t1', "cannot be read as CSV"),
    ("3\ta\0b\t1", "control characters"),
    ("3\ta\rb\t1", "cannot be read as CSV"),
])  # fmt: skip
def test_a_line_that_csv_does_not_read_is_malformed_alone(line, reason):
    rows = parse(block("1\ta\t0", line, "2\tb\t1"), NUMBERS)
    assert rows.lines.tolist() == [1, 3]
    assert [bad.line for bad in rows.malformed] == [2]
    assert reason in rows.malformed[0].reason


def test_separators_in_quotes_separate_nothing_also_where_they_are_long():
    layout = replace(NUMBERS, separator="::")
    rows = parse(block('1::"a::b"::0', '2::a"::1'), layout)
    assert rows.frame["C1"].to_list() == ["a::b", 'a"']


def test_blanks_around_a_text_count_where_the_format_says_so():
    texts = {
        spaced: parse(block("1\t a \t0"), replace(NUMBERS, spaced=spaced)).frame["C1"][0] for spaced in (True, False)
    }
    assert texts == {True: "a", False: " a "}


@pytest.mark.parametrize("number", [1e308, -1e308, 2.0**63, -(2.0**63)])
@pytest.mark.parametrize("rule", ["ln2", "log2", "quantile"])
def test_numbers_however_large_have_a_bin(tmp_path, number, rule):
    rows = raw_rows(40)
    rows[3][1] = str(int(number))
    log = load_clicks("criteo", criteo_file=write_rows(tmp_path / "t.txt", rows), min_count=1, binning=rule)
    ids = log.encoder.encode("\t".join(row) for row in rows)
    assert ids[3, 0] > 0


# Byte order marks


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    rows = raw_rows(60)
    rows[5][14] = "@@"
    plain = write_rows(tmp_path / "plain.txt", rows)
    (tmp_path / "marked.txt").write_bytes(codecs.BOM_UTF8 + plain.read_bytes())
    (tmp_path / "quoted.txt").write_bytes(codecs.BOM_UTF8 + plain.read_bytes().replace(b"@@", b'"x"'))
    logs = [load_clicks("criteo", criteo_file=tmp_path / name, min_count=1) for name in ("plain.txt", "marked.txt")]
    assert torch.equal(logs[0].train.fields, logs[1].train.fields)
    assert len(load_clicks("criteo", criteo_file=tmp_path / "quoted.txt", min_count=1).train) == 48
    lines = plain.read_text().splitlines()
    assert torch.equal(logs[0].encoder.encode(["\ufeff" + lines[0], *lines[1:]]), logs[0].encoder.encode(lines))
    quoted = re.sub(rb"^([01])", rb'"\1"', plain.read_bytes(), flags=re.MULTILINE)
    (tmp_path / "all.txt").write_bytes(codecs.BOM_UTF8 + quoted)  # a quote right after the mark
    assert torch.equal(
        load_clicks("criteo", criteo_file=tmp_path / "all.txt", min_count=1).train.fields, logs[0].train.fields
    )
    (piece,) = encode_file(logs[0].encoder, tmp_path / "marked.txt")
    assert torch.equal(piece.ids, logs[0].encoder.encode(lines))


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_fixed_split_is_read_whatever_its_quotes_and_its_mark(tmp_path, quoting, encoding):
    header = ["label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))]
    for name in ("train", "valid", "test"):
        (tmp_path / "criteo_x4").mkdir(exist_ok=True)
        with open(tmp_path / "criteo_x4" / f"{name}.csv", "w", newline="", encoding=encoding) as file:
            csv.writer(file, quoting=quoting).writerows([header, *raw_rows(50, seed=2)])
    log = load_clicks("criteo_x4", tmp_path, min_count=1)
    expected = log.encoder.encode([",".join(header), *(",".join(row) for row in raw_rows(50, seed=2))])
    assert torch.equal(log.test.fields, expected)
    assert len(log.train) == 50


def test_text_in_utf_16_is_refused_by_name(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("1\t2\n" * 9, encoding="utf-16")
    with pytest.raises(UserError, match=r"t\.txt is UTF-16 text"):
        load_clicks("criteo", criteo_file=path)


# Rows to predict


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = write_rows(tmp_path_factory.mktemp("log") / "train.txt", raw_rows(400, seed=9))
    log = load_clicks("criteo", criteo_file=path, min_count=3)
    return Encoder.from_dict(json.loads(json.dumps(log.encoder.to_dict())))


@pytest.mark.parametrize("label", ["", "?", "2", "-", " "])
def test_the_label_of_rows_to_predict_is_not_looked_at(encoder, label):
    rows = raw_rows(30, seed=3)
    usual = encoder.encode("\t".join(row) for row in rows)
    assert torch.equal(encoder.encode("\t".join([label, *row[1:]]) for row in rows), usual)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_labelled_rows_without_their_last_column_are_not_read_as_unlabelled_ones(encoder, tmp_path, count):
    rows = [row[:-1] for row in raw_rows(count, seed=9)]
    path = write_rows(tmp_path / "rows.txt", rows)
    with pytest.raises(UserError, match=r"rows\.txt: its lines have as many columns as lines without label, but"):
        list(encode_file(encoder, path))


@pytest.mark.parametrize("count", [1, 5, 40])
def test_unlabelled_rows_are_read_as_such_also_if_their_first_values_could_be_labels(encoder, count):
    rows = [["1", *row[2:]] for row in raw_rows(count, seed=9)]
    found = encoder.encode("\t".join(row) for row in rows)
    assert torch.equal(found, encoder.encode("\t".join(["0", *row]) for row in rows))


def test_quoted_values_of_the_census_are_those_without_quotes():
    encoder = Encoder(LAYOUT, ())
    line = '39, State-gov, 7, Bachelors, 13, "Never-married", Adm, Not, White, "Ma,le", 2, 0, 40, " Cuba", <=50K'
    frame = parse(block(line), LAYOUT).frame
    assert frame.row(0) == (
        39,
        "State-gov",
        7,
        "Bachelors",
        13,
        "Never-married",
        "Adm",
        "Not",
        "White",
        "Ma,le",
        2,
        0,
        40,
        "Cuba",
    )
    assert encoder.layout.label == "income"


def test_a_saved_format_of_an_earlier_version_is_still_read():
    data = criteo_layout().to_dict()
    assert RowFormat.from_dict({name: data[name] for name in data if name != "own"} | {"gone": 1}) == criteo_layout()
