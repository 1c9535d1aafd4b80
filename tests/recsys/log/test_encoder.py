"""Raw rows of a user are encoded as the log was that a model was trained on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from recsys.data import load_clicks
from recsys.log.clicks import Clicks
from recsys.log.encoder import Encoder
from recsys.log.formats import Rule
from recsys.predict.rows import encode_file
from tests.recsys.raw_logs import check_ids, ln2, raw_rows, read_rows, vocabularies, write_rows


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
