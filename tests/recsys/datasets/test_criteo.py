"""Criteo's raw format: ids, bins, thresholds and parts, against csv, Counter and math."""

import hashlib
import re

import numpy as np
import pytest
import torch

from harness.errors import UserError
from recsys.data import load_clicks
from recsys.datasets import criteo_splits
from recsys.datasets.criteo import criteo_layout
from recsys.log.blocks import build_field, code_block
from recsys.log.formats import Source
from recsys.log.prepare import prepare, split
from recsys.log.text import read_blocks
from tests.recsys.raw_logs import check_ids, ln2, log2, raw_rows, read_rows, vocabularies, write_rows

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A log of 700 rows."""
    return write_rows(tmp_path_factory.mktemp("raw") / "train.txt", raw_rows(700))


def tokenised(rows, bins):
    return [[bins(text) for text in row[1:14]] + row[14:] for row in rows]


def in_file_order(log, rows, seed):
    """Ids and labels of all parts, put back in the order of the file."""
    order = torch.utils.data.random_split(range(rows), sizes(rows), generator=torch.Generator().manual_seed(seed))
    ids, labels = [None] * rows, [None] * rows
    for part, chosen in zip((log.train, log.val, log.test), order, strict=True):
        for place, row in enumerate(sorted(chosen.indices)):
            ids[row], labels[row] = part.fields[place].tolist(), int(part.labels[place])
    return ids, labels


def sizes(rows):
    train, val = int(0.8 * rows), int(0.1 * rows)
    return [train, val, rows - train - val]


@pytest.mark.parametrize(("binning", "bins"), [("ln2", ln2), ("log2", log2)])
@pytest.mark.parametrize("min_count", [1, 10])
def test_every_value_has_the_id_that_counting_gives(raw, binning, bins, min_count):
    log = load_clicks("criteo", criteo_file=raw, binning=binning, min_count=min_count)
    rows = read_rows(raw)
    tokens = tokenised(rows, bins)
    known = vocabularies(tokens, min_count)
    ids, labels = in_file_order(log, len(rows), seed=42)
    check_ids(ids, tokens, known)
    assert labels == [int(row[0]) for row in rows]
    assert log.field_dims == tuple(len(counts) + 1 for counts in known)
    assert log.field_names == tuple([f"I{n}" for n in range(1, 14)] + [f"C{n}" for n in range(1, 27)])


def test_parts_have_the_published_sizes_and_follow_the_seed(raw):
    logs = [load_clicks("criteo", criteo_file=raw, seed=seed) for seed in (42, 7)]
    for log in logs:
        assert [len(log.train), len(log.val), len(log.test)] == [560, 70, 70]
        assert log.train.fields.dtype == torch.int32
        assert log.train.labels.dtype == torch.uint8
    assert not torch.equal(logs[0].val.fields, logs[1].val.fields)
    assert in_file_order(logs[0], 700, 42) == in_file_order(logs[1], 700, 7)


def test_the_split_is_that_of_torch_random_split():
    for rows in (10, 999):
        chosen = torch.utils.data.random_split(range(rows), sizes(rows), generator=torch.Generator().manual_seed(5))
        expected = np.full(rows, 255)
        for part, subset in enumerate(chosen):
            expected[subset.indices] = part
        assert split(rows, (0.8, 0.1, 0.1), seed=5).tolist() == expected.tolist()
    assert np.bincount(split(1001, (0.9, 0.1, 0.0), seed=0)).tolist() == [900, 101]
    assert split(7, (0.0, 0.0, 1.0), seed=0).tolist() == [2] * 7


def prepared(folder, raw, block_bytes):
    folder.mkdir()
    options = {"seed": 1, "min_count": 4, "count_all": True, "limit": 60}
    made = prepare([Source(raw)], criteo_layout(), folder, **options, block_bytes=block_bytes)
    files = {name: (folder / name).read_bytes() for part in PARTS for name in (f"{part}.fields", f"{part}.labels")}
    return made.encoder.to_dict(), files


def test_the_size_of_a_block_changes_nothing(raw, tmp_path):
    whole = prepared(tmp_path / "whole", raw, 1 << 25)
    for block_bytes in (1, 5000):
        assert prepared(tmp_path / str(block_bytes), raw, block_bytes) == whole


def test_counting_in_slices_changes_nothing(raw, tmp_path):
    blocks = [code_block(block, criteo_layout(), f"{tmp_path}/{block.first_line}") for block in read_blocks(raw, 20000)]
    counted = [(block, np.zeros(block.rows, dtype=np.uint8)) for block in blocks]
    for field in (2, 13, 38):
        at_once, in_slices = (build_field(counted, criteo_layout(), field, 2, limit) for limit in (1 << 20, 7))
        assert len(at_once.keys) > 1
        assert at_once.keys.tolist() == in_slices.keys.tolist()


def test_only_rows_of_the_training_part_count_if_asked(raw, tmp_path):
    rows = read_rows(raw)
    made = prepare([Source(raw)], criteo_layout(), tmp_path, seed=3, min_count=3, count_all=False, block_bytes=9000)
    chosen = torch.utils.data.random_split(range(700), sizes(700), generator=torch.Generator().manual_seed(3))[0]
    known = vocabularies(tokenised([rows[row] for row in chosen.indices], ln2), 3)
    assert made.encoder.field_dims == tuple(len(counts) + 1 for counts in known)
    assert made.encoder.field_dims != tuple(len(counts) + 1 for counts in vocabularies(tokenised(rows, ln2), 3))


def test_a_limit_reads_the_first_lines(raw, tmp_path):
    first = write_rows(tmp_path / "first.txt", read_rows(raw)[:200])
    limited, short = load_clicks("criteo", criteo_file=raw, rows=200), load_clicks("criteo", criteo_file=first)
    assert torch.equal(limited.train.fields, short.train.fields)
    assert len(limited.train) + len(limited.val) + len(limited.test) == 200


def test_quantile_bins_hold_about_equal_shares(raw):
    log = load_clicks("criteo", criteo_file=raw, binning="quantile", min_count=1)
    values = [int(row[5]) for row in read_rows(raw) if row[5]]
    field = log.encoder.fields[4]
    ids = field.ids(np.array(values, dtype=np.float64))
    ordered = sorted(values)
    edges = sorted({ordered[-(-len(ordered) * k // 32) - 1] for k in range(1, 32)})
    assert field.edges.tolist() == edges
    expected = [sum(value >= edge for edge in edges) for value in values]
    assert len(set(zip(ids.tolist(), expected, strict=True))) == len(set(expected))


@pytest.mark.data
def test_the_published_sample_is_read_like_csv_reads_it(data_dir):
    path = data_dir / "criteo-sample" / "train.txt"
    if not path.is_file():
        pytest.skip("needs criteo-sample/train.txt below $DFA_DATA")
    log = load_clicks("criteo", criteo_file=path)
    rows = read_rows(path)
    tokens = tokenised(rows, ln2)
    ids, labels = in_file_order(log, len(rows), seed=42)
    check_ids(ids, tokens, vocabularies(tokens, 10))
    assert sum(labels) == 418


def test_a_missing_log_says_where_it_was_looked_for_and_where_it_is(tmp_path):
    with pytest.raises(UserError, match=r"looked for .*criteo/train\.txt\. Download.*https.*--dataset synthetic"):
        load_clicks("criteo", tmp_path)
    with pytest.raises(UserError, match=r"looked for .*nothing\.txt"):
        load_clicks("criteo", criteo_file=tmp_path / "nothing.txt")


# Criteo_x1 and Criteo_x4


@pytest.fixture
def x4(tmp_path):
    """Three parts of 200, 40 and 30 rows, with an Id, and with the label in another column than in Kaggle's file."""
    rows = raw_rows(270, seed=4)
    header = ["Id", *(f"I{n}" for n in range(1, 14)), "Label", *(f"C{n}" for n in range(1, 27))]
    parts = {"train": rows[:200], "valid": rows[200:240], "test": rows[240:]}
    for name, part in parts.items():
        table = [[str(n), *row[1:14], row[0], *row[14:]] for n, row in enumerate(part)]
        write_rows(tmp_path / "criteo_x4" / f"{name}.csv", [header, *table], ",")
    return tmp_path, parts


def test_fixed_parts_keep_their_rows_and_only_training_rows_count(x4):
    root, parts = x4
    log = load_clicks("criteo_x4", root, min_count=2)
    known = vocabularies(tokenised(parts["train"], ln2), 2)
    assert log.field_dims == tuple(len(counts) + 1 for counts in known)
    for part, name in ((log.train, "train"), (log.val, "valid"), (log.test, "test")):
        check_ids(part.fields.tolist(), tokenised(parts[name], ln2), known)
        assert part.labels.tolist() == [int(row[0]) for row in parts[name]]


def test_scaled_numbers_of_x1_are_binned_by_quantiles(tmp_path):
    rows = raw_rows(300, seed=5)
    for row in rows:
        row[1:14] = [f"{int(text or 0) / 1000:.6f}" for text in row[1:14]]
    header = ["label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))]
    for name, part in (("train", rows[:200]), ("valid", rows[200:250]), ("test", rows[250:])):
        write_rows(tmp_path / "criteo_x1" / f"{name}.csv", [header, *part], ",")
    log = load_clicks("criteo_x1", tmp_path, min_count=1)
    check_ids(
        [row[13:] for row in log.test.fields.tolist()],
        [row[14:] for row in rows[250:]],
        vocabularies([row[14:] for row in rows[:200]], 1),
    )
    known = np.array([float(row[2]) for row in rows[:200]])
    edges = np.unique(np.sort(known)[[-(-200 * k // 32) - 1 for k in range(1, 32)]])
    bins = [(known_value >= edges).sum() for known_value in known]
    assert len(set(zip(log.train.fields[:, 1].tolist(), bins, strict=True))) == len(set(bins))


def test_a_large_file_that_is_not_the_published_one_is_refused_before_it_is_read(x4, monkeypatch):
    root, _ = x4
    monkeypatch.setattr(criteo_splits, "SAMPLE", 10)
    with pytest.raises(UserError, match=r"train\.csv is not the published file: its md5 is"):
        load_clicks("criteo_x4", root)


def test_a_published_file_must_give_the_published_number_of_rows(x4, monkeypatch):
    root, _ = x4
    paths = [root / "criteo_x4" / f"{name}.csv" for name in ("train", "valid", "test")]
    md5 = tuple(hashlib.md5(path.read_bytes()).hexdigest() for path in paths)
    monkeypatch.setattr(criteo_splits, "SAMPLE", 10)
    for rows, match in (((200, 40, 30), None), ((200, 41, 30), r"valid\.csv gave 40 rows where .* has 41")):
        published = criteo_splits.FixedSplit("Criteo_x4", "https://example.org", md5, rows)
        monkeypatch.setitem(criteo_splits.SPLITS, "criteo_x4", published)
        if match is None:
            assert len(load_clicks("criteo_x4", root).val) == 40
        else:
            with pytest.raises(UserError, match=match):
                load_clicks("criteo_x4", root)


def test_missing_parts_are_named_with_their_address(x4):
    root, _ = x4
    (root / "criteo_x4" / "valid.csv").unlink()
    with pytest.raises(
        UserError, match=r"looked for valid\.csv in .*criteo_x4\. Download https://hugging.*Criteo_x4\.zip"
    ):
        load_clicks("criteo_x4", root)


def test_a_header_without_a_column_is_refused(x4):
    root, _ = x4
    path = root / "criteo_x4" / "test.csv"
    path.write_text(path.read_text().replace("C7,", "D7,", 1))
    with pytest.raises(UserError, match=re.escape("test.csv, line 1: the header") + ".*C7"):
        load_clicks("criteo_x4", root)


def test_published_splits_add_up_to_the_whole_log():
    for published in criteo_splits.SPLITS.values():
        assert sum(published.rows) == 45_840_617
        assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in published.md5)


def test_values_of_one_field_that_look_alike_keep_their_own_ids(tmp_path):
    """Short, long and non-ASCII text, and text that differs from the ninth byte on."""
    texts = ["a", "aa", "12345678", "123456789", "123456780", "é", "éé", "ééééé", "", " a", "日本"]
    rows = raw_rows(len(texts) * 4, seed=6)
    for number, row in enumerate(rows):
        row[14] = texts[number % len(texts)]
    log = load_clicks("criteo", criteo_file=write_rows(tmp_path / "train.txt", rows), min_count=1)
    ids, _ = in_file_order(log, len(rows), seed=42)
    pairs = {(row[14], each[13]) for row, each in zip(rows, ids, strict=True)}
    assert len(pairs) == len({number for _, number in pairs}) == len(texts)
