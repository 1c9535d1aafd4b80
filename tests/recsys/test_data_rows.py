"""Bad rows are found, counted and named; bad files are refused; raw rows are encoded as the log was."""

import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from recsys.clicks import Clicks
from recsys.data import load_clicks
from recsys.encode import Encoder
from recsys.formats import Rule
from recsys.predict_rows import encode_file
from tests.recsys.raw_logs import check_ids, ln2, raw_rows, read_rows, vocabularies, write_rows

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
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load_clicks(**({"dataset": "synthetic", "rows": 100} | options))


# Raw rows of a user


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A log of 400 rows, and the encoder as a run would have saved and read it."""
    path = write_rows(tmp_path_factory.mktemp("raw") / "train.txt", raw_rows(400, seed=9))
    log = load_clicks("criteo", criteo_file=path, min_count=3)
    return path, log, Encoder.from_dict(json.loads(json.dumps(log.encoder.to_dict())))


def test_a_saved_encoder_gives_the_ids_of_the_log(trained):
    path, log, encoder = trained
    ids = encoder.encode(path.read_text().splitlines())
    parts = torch.cat([log.train.fields, log.val.fields, log.test.fields])
    assert sorted(ids.tolist()) == sorted(parts.tolist())
    assert encoder.field_dims == log.field_dims
    assert encoder.to_dict() == log.encoder.to_dict()
    assert encoder.fingerprint == log.encoder.fingerprint


def test_rows_without_a_label_have_the_same_ids(trained):
    path, _, encoder = trained
    lines = path.read_text().splitlines()
    assert torch.equal(encoder.encode(line.partition("\t")[2] for line in lines), encoder.encode(lines))


def test_unseen_values_have_id_0_and_missing_ones_their_own(trained):
    path, _, encoder = trained
    known = vocabularies([[ln2(text) for text in row[1:14]] + row[14:] for row in read_rows(path)], 3)
    unseen = ["99999999999"] * 13 + ["never seen"] * 26
    missing = [""] * 39
    ids = encoder.encode(["\t".join(unseen), "\t".join(missing)]).tolist()
    assert ids[0] == [0] * 39
    check_ids(ids, [unseen, ["missing"] * 13 + missing[13:]], known)
    assert all(ids[1])


def test_a_file_is_encoded_in_order_and_in_pieces(trained):
    path, _, encoder = trained
    pieces = list(encode_file(encoder, path, block_bytes=3000))
    assert len(pieces) > 5
    assert all(piece.whole.all() and not piece.malformed for piece in pieces)
    assert torch.equal(torch.cat([piece.ids for piece in pieces]), encoder.encode(path.read_text().splitlines()))


def test_a_short_row_is_an_error_that_names_the_line(trained, tmp_path):
    path, _, encoder = trained
    lines = path.read_text().splitlines()
    lines[4] = lines[4].rpartition("\t")[0]
    with pytest.raises(UserError, match=r"the rows, line 5: 39 columns instead of 40\. Each line should hold 39"):
        encoder.encode(lines)
    (tmp_path / "new.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"new\.txt, line 5: 39 columns instead of 40"):
        list(encode_file(encoder, tmp_path / "new.txt", block_bytes=700))


def test_skipped_rows_leave_their_places_open(trained, tmp_path):
    path, _, encoder = trained
    lines = path.read_text().splitlines()[:40]
    ids = encoder.encode(lines)
    bad = {5, 6, 19, 39}
    damaged = [line.rpartition("\t")[0] if number in bad else line for number, line in enumerate(lines)]
    damaged.insert(12, "")  # a blank line is no row
    (tmp_path / "new.txt").write_text("\n".join(damaged))
    for block_bytes in (1, 700, 1 << 20):
        pieces = list(encode_file(encoder, tmp_path / "new.txt", block_bytes, skip_malformed=True))
        whole = torch.cat([piece.whole for piece in pieces])
        assert whole.tolist() == [number not in bad for number in range(40)]
        assert torch.equal(torch.cat([piece.ids for piece in pieces]), ids[whole])
        assert [each.line for piece in pieces for each in piece.malformed] == [6, 7, 21, 41]


def test_a_first_line_cut_short_does_not_decide_whether_there_are_labels(trained, tmp_path):
    path, _, encoder = trained
    labelled = path.read_text().splitlines()[:9]
    for lines in (labelled, [line.partition("\t")[2] for line in labelled]):
        (tmp_path / "new.txt").write_text("\n".join([lines[0].rpartition("\t")[0], *lines[1:]]))
        (piece,) = encode_file(encoder, tmp_path / "new.txt", skip_malformed=True)
        assert piece.whole.tolist() == [False] + [True] * 8
        assert torch.equal(piece.ids, encoder.encode(labelled[1:]))


def test_a_number_that_is_none_names_line_and_column(trained):
    path, _, encoder = trained
    lines = path.read_text().splitlines()[:3]
    lines[1] = "\t".join(["0", "few", *lines[1].split("\t")[2:]])
    with pytest.raises(UserError, match="line 2: I1 is 'few', not a whole number"):
        encoder.encode(lines)


def test_an_empty_file_has_nothing_to_predict(trained, tmp_path):
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(UserError, match=r"none\.txt has no rows"):
        list(encode_file(trained[2], tmp_path / "none.txt"))


def test_a_batch_is_a_copy_in_memory():
    clicks = Clicks(torch.arange(12, dtype=torch.int32).reshape(4, 3), torch.tensor([0, 1, 1, 0], dtype=torch.uint8))
    for index in (torch.tensor([2, 0]), slice(1, 3)):
        fields, labels = clicks.batch(index)
        assert fields.tolist() == np.arange(12).reshape(4, 3)[index].tolist()
        assert labels.dtype == torch.float32
        assert labels.tolist() == np.array([0, 1, 1, 0])[index].tolist()
        fields.fill_(99)
    assert int(clicks.fields.max()) == 11
    assert len(clicks) == 4


def test_encoders_that_give_other_ids_have_other_fingerprints(trained):
    _, _, encoder = trained
    first, *others = encoder.fields
    changes = [
        {"name": "other"},
        {"rule": Rule.QUANTILE},
        {"edges": np.array([1.5])},
        {"keys": first.keys[::-1]},
        {"keys": first.keys[:-1]},
    ]
    fields = [encoder.fields, encoder.fields[::-1], *((replace(first, **change), *others) for change in changes)]
    assert len({replace(encoder, fields=tuple(chosen)).fingerprint for chosen in fields}) == len(fields)
