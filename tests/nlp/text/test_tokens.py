"""The cache of token ids: made once, whole or not at all, and read as it was written."""

import json
import threading
import time

import numpy as np
import pytest

from harness.errors import UserError
from nlp.text import tokens
from nlp.text.load import load_corpus
from nlp.text.vocabulary import CharVocabulary, train_vocabulary
from tests.nlp.text.texts import TEXTS, made, written

pytestmark = pytest.mark.usefixtures("cache")


def test_tokens_are_made_once_and_again_only_for_other_texts_or_settings(folder, cache, monkeypatch):
    first = load_corpus(text_dir=folder)
    monkeypatch.setattr(tokens, "train_vocabulary", lambda *a, **k: pytest.fail("trained again"))
    again = load_corpus(text_dir=folder)
    assert again.vocabulary.fingerprint == first.vocabulary.fingerprint
    assert np.array_equal(again.train, first.train)
    assert again.words == first.words
    monkeypatch.undo()
    monkeypatch.setenv("TINYDFA_CACHE", str(cache))
    load_corpus(text_dir=folder, lower=True)
    load_corpus(text_dir=folder, size=299)
    load_corpus(text_dir=folder, vocabulary="char")
    (folder / "test.txt").write_text("Anders.")
    assert load_corpus(text_dir=folder).vocabulary.decode(load_corpus(text_dir=folder).test) == "Anders."
    assert len(made(cache)) == 5


def test_two_that_want_the_same_tokens_at_once_make_them_once(folder, cache, monkeypatch):
    trained, found = [], []

    def slowly(*args):
        trained.append(args)
        time.sleep(0.2)
        return train_vocabulary(*args)

    monkeypatch.setattr(tokens, "train_vocabulary", slowly)
    work = [threading.Thread(target=lambda: found.append(load_corpus(text_dir=folder, size=300))) for _ in "ab"]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(trained) == 1
    assert [corpus.vocabulary.decode(corpus.train) for corpus in found] == [TEXTS["train"]] * 2


def test_what_a_killed_process_left_is_not_used_and_goes_away(folder, cache, monkeypatch):
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("harness.files.os.replace", killed)
        patch.setattr("harness.files.shutil.rmtree", lambda *a, **k: None)  # a killed process does not clean up
        with pytest.raises(KeyboardInterrupt):
            load_corpus(text_dir=folder, size=300)
    [left] = made(cache)
    assert left.suffix == ".partial"
    (left / "train.bin").write_bytes(b"\0\0" * 10)
    corpus = load_corpus(text_dir=folder, size=300)
    assert corpus.vocabulary.decode(corpus.train) == TEXTS["train"]
    assert [path.suffix for path in made(cache)] == [""]


@pytest.mark.parametrize("damage", ["shortened", "absent", "not json", "other counts"])
def test_damaged_tokens_are_made_anew(folder, cache, damage):
    load_corpus(text_dir=folder, size=300)
    [kept] = made(cache)
    if damage == "shortened":
        (kept / "train.bin").write_bytes((kept / "train.bin").read_bytes()[:-2])
    elif damage == "absent":
        (kept / "val.bin").unlink()
    elif damage == "not json":
        (kept / "vocabulary.json").write_text("{")
    else:
        (kept / "counts.json").write_text(json.dumps({"train": {}}))
    corpus = load_corpus(text_dir=folder, size=300)
    assert corpus.vocabulary.decode(corpus.train) == TEXTS["train"]


def test_a_cache_that_cannot_be_written_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write .*TINYDFA_CACHE"):
        load_corpus(text_dir=folder)


def test_more_tokens_than_16_bits_hold_are_kept_in_32(tmp_path):
    characters = "".join(map(chr, range(0x10000, 0x10000 + 66_000)))
    folder = written(tmp_path / "own", {"train": characters, "valid": characters[-5:], "test": "x " + characters[0]})
    corpus = load_corpus(text_dir=folder, vocabulary="char")
    assert corpus.train.dtype == np.int32
    assert corpus.train.tolist() == list(range(1, 66_001))
    assert corpus.val.tolist() == [65_996, 65_997, 65_998, 65_999, 66_000]
    assert corpus.test.tolist() == [0, 0, 1]


def test_a_text_is_encoded_piece_by_piece_as_it_is_read(tmp_path):
    log = []

    class Watched(CharVocabulary):
        def encode(self, text):
            log.append(f"encode {text}")
            return super().encode(text)

    def read():
        for piece in ("ab", " ba", " a"):
            log.append(f"read {piece}")
            yield piece

    counts = tokens.write_ids(tmp_path / "ids.bin", read(), Watched(" ab"))
    assert log == ["read ab", "encode ab", "read  ba", "encode  ba", "read  a", "encode  a"]
    assert counts == {"tokens": 7, "words": 3}
    assert np.fromfile(tmp_path / "ids.bin", np.uint16).tolist() == [2, 3, 1, 3, 2, 1, 2]
