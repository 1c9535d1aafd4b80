"""The embedded log and the small real data sets."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from harness.errors import UserError
from recsys.data import load_clicks
from recsys.datasets import movielens
from recsys.datasets import teacher as process
from recsys.datasets.adult import FILES
from tests.recsys.raw_logs import read_rows, vocabularies


@pytest.fixture(scope="module")
def log():
    return load_clicks("synthetic")


def test_the_embedded_log_is_in_criteos_raw_format(tmp_path):
    chance = process.write_log(tmp_path / "train.txt", 500, seed=0)
    rows = read_rows(tmp_path / "train.txt")
    assert len(rows) == len(chance) == 500
    assert {len(row) for row in rows} == {40}
    assert {row[0] for row in rows} == {"0", "1"}
    assert all(text == "" or text.lstrip("-").isdigit() for row in rows for text in row[1:14])
    assert all(text == "" or (len(text) == 8 and int(text, 16) >= 0) for row in rows for text in row[14:])


def test_the_same_seed_gives_the_same_bytes_and_a_longer_log_begins_with_a_shorter(tmp_path):
    digests = {}
    for name, rows, seed in (("a", 300, 0), ("b", 300, 0), ("c", 300, 1), ("longer", 20_100, 0)):
        process.write_log(tmp_path / name, rows, seed)
        digests[name] = hashlib.sha256(b"".join((tmp_path / name).read_bytes().splitlines(True)[:300])).hexdigest()
    assert digests["a"] == digests["b"] == digests["longer"] != digests["c"]
    assert digests["a"] == "2c34925213c7156473c95b099e8ed5683d101c44da89eb4ce87498094f690ef7"


def test_clicks_come_from_the_teachers_probabilities(tmp_path):
    chance = process.write_log(tmp_path / "train.txt", 40_000, seed=3)
    clicks = np.array([line[:1] == b"1" for line in (tmp_path / "train.txt").read_bytes().splitlines()])
    assert abs(clicks.mean() - process.CLICK_RATE) < 0.02
    deviation = (clicks - chance).sum() / np.sqrt((chance * (1 - chance)).sum())
    assert abs(deviation) < 4
    for low in np.arange(0, 1, 0.1):
        here = (chance >= low) & (chance < low + 0.1)
        error = np.sqrt(chance[here].mean() * (1 - chance[here].mean()) / here.sum())
        assert abs(clicks[here].mean() - chance[here].mean()) < 4 * error


def test_effects_of_pairs_average_out_over_either_field():
    teacher = process.make_teacher(0)
    for (one, other), effect in zip(process.PAIRS, teacher.pairs, strict=True):
        rows, columns = (1 / np.arange(1, process.CARDINALITIES[field] + 1) for field in (one, other))
        np.testing.assert_allclose(rows @ effect, 0, atol=1e-9)
        np.testing.assert_allclose(effect @ columns, 0, atol=1e-9)
        assert np.abs(effect).mean() > 0.1


def test_the_best_auc_is_known_and_a_linear_model_stays_well_below(log):
    assert [len(log.train), len(log.val), len(log.test)] == [32_000, 4_000, 4_000]
    assert 0.84 < log.best_auc < 0.88
    offsets = np.concatenate([[0], np.cumsum(log.field_dims)])
    tables = [
        csr_matrix(
            (np.ones(part.fields.numel()), (part.fields.numpy() + offsets[:-1]).ravel(), np.arange(len(part) + 1) * 39),
            shape=(len(part), offsets[-1]),
        )
        for part in (log.train, log.test)
    ]
    model = LogisticRegression(C=0.03, solver="liblinear").fit(tables[0], log.train.labels.numpy())
    linear = roc_auc_score(log.test.labels.numpy(), model.decision_function(tables[1]))
    assert 0.65 < linear < log.best_auc - 0.1


def test_another_split_of_the_embedded_log_is_of_the_same_rows(log):
    other = load_clicks("synthetic", seed=1)
    parts = [torch.cat([part.fields for part in (each.train, each.val, each.test)]) for each in (log, other)]
    assert not torch.equal(log.test.fields, other.test.fields)
    assert sorted(parts[0].tolist()) == sorted(parts[1].tolist())
    assert abs(log.best_auc - other.best_auc) < 0.03


def test_the_embedded_log_has_the_rows_asked_for():
    log = load_clicks("synthetic", rows=1234)
    assert len(log.train) + len(log.val) + len(log.test) == 1234


# Adult

ADULT = """\
39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, Cuba, <=50K
50, ?, 83311, Bachelors, 13, Married-civ-spouse, Exec-managerial, Husband, White, Male, 0, 0, 13, Peru, >50K
38, Private, 215646, HS-grad, 9, Divorced, ?, Not-in-family, Black, Female, 0, 0, 40, Cuba, <=50K
"""


@pytest.fixture
def adult(tmp_path):
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "adult.data").write_text(ADULT * 40 + "\n")
    test = "|1x3 Cross validator\n" + ADULT.replace("50K", "50K.").replace("Peru", "Mars") * 4
    (tmp_path / "adult" / "adult.test").write_text(test)
    return tmp_path


def test_adult_has_a_published_test_part_and_a_tenth_of_the_rest_to_validate(adult, capsys):
    log = load_clicks("adult", adult)
    assert [len(log.train), len(log.val), len(log.test)] == [108, 12, 12]
    assert log.test.labels.tolist() == [0, 1, 0] * 4
    assert capsys.readouterr().err == ""


def test_adult_knows_missing_values_and_what_training_rows_lack(adult):
    log = load_clicks("adult", adult)
    fields = dict(zip(log.field_names, log.test.fields[:3].T.tolist(), strict=True))
    assert fields["native-country"][1] == 0  # Mars
    assert len(set(fields["workclass"])) == 3
    assert 0 not in fields["workclass"]  # `?` is a category of its own
    assert log.field_dims[log.field_names.index("occupation")] == 4
    without_label = ADULT.splitlines()[1].rpartition(",")[0]
    for line in (ADULT.splitlines()[1], without_label, without_label.replace(", ", ",")):
        assert log.encoder.encode([line]).tolist()[0][:13] == log.test.fields[1].tolist()[:13]


@pytest.mark.data
def test_the_real_census_has_the_published_sizes(data_dir):
    log = load_clicks("adult", data_dir)
    assert len(log.train) + len(log.val) == 32_561
    assert len(log.val) == 3_257
    assert len(log.test) == 16_281
    sizes = dict(zip(log.field_names, log.field_dims, strict=True))
    assert [sizes[name] for name in ("workclass", "education", "race", "sex")] == [10, 17, 6, 3]
    assert all(sizes[name] <= 33 for name in ("age", "fnlwgt", "hours-per-week"))
    age = log.train.fields[:, 0]
    assert torch.bincount(age)[1:].max() < 3 * len(age) / 32


# MovieLens


def ratings(count):
    return [[str(1 + n % 7), str(1 + n * n % 11), str(1 + n % 5), "978300760"] for n in range(count)]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """MovieLens-1M's archive with 50 ratings, and a file that wants to leave its folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("../escaped.txt", "x")
        opened.writestr("ml-1m/ratings.dat", "".join("::".join(row) + "\n" for row in ratings(50)))
    data = content.getvalue()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "ml-1m.zip").write_bytes(data)
    changed = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    monkeypatch.setattr(movielens, "ARCHIVE_1M", movielens.RemoteFile("ml-1m.zip", urls=(), **changed))
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "root"


def test_movielens_rows_are_users_items_and_whether_they_liked_them(archive):
    log = load_clicks("ml-1m", archive)
    rows = ratings(50)
    assert (len(log.train), len(log.val), len(log.test)) == (40, 5, 5)
    assert log.field_names == ("user", "item")
    known = vocabularies([row[:2] for row in rows], 1)
    assert log.field_dims == tuple(len(counts) + 1 for counts in known)
    clicks = sum(int(part.labels.sum()) for part in (log.train, log.val, log.test))
    assert clicks == sum(row[2] in "45" for row in rows)
    assert log.encoder.encode(["3::2"]).tolist() == log.encoder.encode(["3::2::5::978300760"]).tolist()


def test_nothing_but_the_ratings_is_taken_out_of_the_archive(archive, tmp_path):
    load_clicks("ml-1m", archive)
    assert sorted(path.name for path in archive.iterdir()) == ["ml-1m.zip"]
    assert [path.name for path in (tmp_path / "cache" / "data").rglob("*") if path.is_file()] == ["ratings.dat"]
    assert list(tmp_path.rglob("escaped.txt")) == []


def test_ratings_that_are_unpacked_already_are_taken_as_they_are(tmp_path):
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ratings.dat").write_text("".join("::".join(row) + "\n" for row in ratings(30)))
    assert len(load_clicks("ml-1m", tmp_path).train) == 24


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "ml-1m.zip"
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(UserError, match=r"ml-1m\.zip: cannot extract ml-1m/ratings\.dat"):
        movielens.take_out(path, movielens.RATINGS_1M, tmp_path / "ratings.dat")
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("ml-1m/README", "no ratings")
    with pytest.raises(UserError, match="cannot extract"):
        movielens.take_out(path, movielens.RATINGS_1M, tmp_path / "ratings.dat")
    assert not (tmp_path / "ratings.dat").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(movielens, "LARGEST", 100)
    with pytest.raises(UserError, match="larger than 100 bytes"):
        movielens.take_out(archive / "ml-1m.zip", movielens.RATINGS_1M, tmp_path / "ratings.dat")


@pytest.mark.data
def test_the_real_ratings_have_the_published_sizes(data_dir):
    log = load_clicks("ml-100k", data_dir)
    assert (len(log.train), len(log.val), len(log.test)) == (80_000, 10_000, 10_000)
    assert log.field_dims == (943 + 1, 1682 + 1)
    clicks = sum(int(part.labels.sum()) for part in (log.train, log.val, log.test))
    assert clicks == 34_174 + 21_201  # ratings of 4 and of 5


def test_every_file_to_download_has_an_address_and_the_archives_a_checksum():
    for file in (*FILES, movielens.RATINGS_100K, movielens.ARCHIVE_1M):
        assert file.urls
        assert all(url.startswith("https://") for url in file.urls)
    assert len(movielens.ARCHIVE_1M.sha256) == len(movielens.RATINGS_100K.sha256) == 64
    assert len(movielens.ARCHIVE_1M.urls) == 2
