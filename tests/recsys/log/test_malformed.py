"""Bad rows are found, counted and named; bad files are refused."""

import gzip
import re

import pytest
import torch

from harness.errors import UserError
from recsys.data import load_clicks
from tests.recsys.raw_logs import raw_rows, write_rows

BAD = {  # line number: what is wrong with it, and what is said about it
    3: (lambda row: row[:-1], "39 columns instead of 40"),
    4: (lambda row: [*row, "more"], "41 columns instead of 40"),  # together with line 3 the separators add up
    50: (lambda row: ["2", *row[1:]], "label is '2', not 1 or 0"),
    51: (lambda row: ["", *row[1:]], "label is '', not 1 or 0"),
    99: (lambda row: [row[0], row[1], "3.5", *row[3:]], "I2 is '3.5', not a whole number"),
    100: (lambda row: [row[0], "many", *row[2:]], "I1 is 'many', not a whole number"),
    700: (lambda row: [row[0], "nan", *row[2:]], "I1 is 'nan', not a whole number"),
}


def test_malformed_rows_are_skipped_counted_and_named(tmp_path, capsys):
    rows = raw_rows(1000)
    for line, (damage, _) in BAD.items():
        rows[line - 1] = damage(rows[line - 1])
    log = load_clicks("criteo", criteo_file=write_rows(tmp_path / "train.txt", rows))
    said = capsys.readouterr().err
    assert "7 of 1000 rows are malformed" in said
    assert all(f"line {line}: {reason}" in said for line, (_, reason) in BAD.items())
    good = [row for line, row in enumerate(rows, 1) if line not in BAD]
    same = load_clicks("criteo", criteo_file=write_rows(tmp_path / "good.txt", good))
    assert len(log.train) == int(0.8 * 993)
    assert torch.equal(log.train.fields, same.train.fields)
    assert torch.equal(log.test.labels, same.test.labels)
    load_clicks("criteo", criteo_file=tmp_path / "train.txt")
    assert capsys.readouterr().err == ""  # said once, when it was prepared


@pytest.mark.parametrize(("rows", "bad"), [(1000, 11), (20, 10), (3000, 31)])
def test_too_many_malformed_rows_are_an_error(tmp_path, rows, bad):
    table = raw_rows(rows)
    for row in table[:: rows // bad][:bad]:
        row[0] = "yes"
    path = write_rows(tmp_path / "train.txt", table)
    with pytest.raises(UserError, match=rf"train\.txt: {bad} of {rows} rows are malformed \(line 1: label is 'yes'"):
        load_clicks("criteo", criteo_file=path)


@pytest.mark.parametrize(("rows", "bad"), [(1000, 10), (21, 10), (3000, 30)])
def test_a_few_malformed_rows_are_none(tmp_path, rows, bad):
    table = raw_rows(rows)
    for row in table[:bad]:
        row[5] = "x"
    log = load_clicks("criteo", criteo_file=write_rows(tmp_path / "train.txt", table))
    assert len(log.train) + len(log.val) + len(log.test) == rows - bad


def test_blank_lines_line_ends_of_windows_and_a_missing_last_line_end_do_no_harm(tmp_path, capsys):
    rows = raw_rows(60)
    plain = load_clicks("criteo", criteo_file=write_rows(tmp_path / "train.txt", rows))
    text = (tmp_path / "train.txt").read_text()
    for name, changed in {
        "windows": text.replace("\n", "\r\n"),
        "blank": text.replace("\n", "\n\n"),
        "unfinished": text.rstrip("\n"),
    }.items():
        (tmp_path / name).write_bytes(changed.encode())
        assert torch.equal(load_clicks("criteo", criteo_file=tmp_path / name).train.fields, plain.train.fields), name
    assert capsys.readouterr().err == ""


def test_bytes_that_are_no_utf8_are_a_category_like_any_other(tmp_path):
    rows = raw_rows(60)
    for row in rows[:40]:
        row[14] = "@@"
    path = write_rows(tmp_path / "train.txt", rows)
    path.write_bytes(path.read_bytes().replace(b"@@", b"\xff\xfe"))
    log = load_clicks("criteo", criteo_file=path)
    assert int((torch.cat([log.train.fields, log.val.fields, log.test.fields])[:, 13] == 1).sum()) == 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"\n\n", "has no rows"),
        (gzip.compress(b"0\t1\n", mtime=0), "is a gzip archive"),
        (b"\x00\x01" * (1 << 20), "longer than 1048576 bytes"),
        (b"label,I1\n0,3\n", r"2 of 2 rows are malformed \(line 1: 1 columns instead of 40"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_clicks("criteo", criteo_file=path)


def test_too_few_rows_for_three_parts_are_an_error(tmp_path):
    path = write_rows(tmp_path / "train.txt", raw_rows(9))
    with pytest.raises(UserError, match=r"train\.txt: 9 rows do not give a training, validation and test part"):
        load_clicks("criteo", criteo_file=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "critoe"}, "--dataset critoe: no such data set. There are synthetic, adult"),
        ({"rows": 9}, "--rows 9: too few"),
        ({"min_count": 0}, "--min-count 0: should be 1 or more"),
        ({"binning": "ln3"}, "--binning ln3: no such rule. There are ln2, log2, quantile"),
        ({"dataset": "adult", "min_count": 3}, "--min-count 3: on adult every category has an id"),
        ({"dataset": "criteo_x1", "binning": "log2"}, "--binning log2: criteo_x1 has no counts"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load_clicks(**({"dataset": "synthetic", "rows": 100} | options))
