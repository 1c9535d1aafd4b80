"""Corpora: named and own texts, their splits and words, and a cache that holds whole things only."""

import hashlib
import io
import sys
import zipfile
from itertools import pairwise

import numpy as np
import pytest

from harness.errors import UserError
from nlp.text import corpora
from nlp.text.blocks import blocks, string_part
from nlp.text.corpora import find_texts, share_of_100
from nlp.text.load import load_corpus
from tests.nlp.text.texts import TEXTS, written

pytestmark = pytest.mark.usefixtures("cache")


def test_the_synthetic_corpus_is_all_of_pythons_topics_and_no_topic_is_in_two_splits():
    from pydoc_data.topics import topics

    splits = find_texts("synthetic").splits
    named = [part.name for parts in splits.values() for part in parts]
    assert sorted(named) == sorted(f"pydoc_data.topics[{name!r}]" for name in topics)
    assert all("".join(blocks(parts)).strip() for parts in splits.values())


def test_the_synthetic_corpus_loads_without_files_and_decodes_to_its_text():
    from pydoc_data.topics import topics

    corpus = load_corpus("synthetic", size=600)
    names = [name for name in sorted(topics) if share_of_100(name) >= 95]
    assert corpus.vocabulary.decode(corpus.test) == "\n\n".join(topics[name] for name in names)
    assert (corpus.name, corpus.vocabulary.size, corpus.train.dtype) == ("synthetic", 600, np.uint16)
    assert corpus.words["train"] == sum(len(text.split()) for name, text in topics.items() if share_of_100(name) < 90)


def test_a_python_without_its_documentation_is_an_error_with_a_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match=r"synthetic .*pydoc_data\.topics.*--text-dir"):
        load_corpus("synthetic")


def test_the_vocabulary_comes_from_the_training_text_alone(folder):
    corpus = load_corpus(text_dir=folder, vocabulary="char")
    assert set(corpus.vocabulary.characters) == set(TEXTS["train"])
    assert corpus.vocabulary.decode(corpus.val) == "Das \ufffdoot ist gro\xdf.\n"  # no B in the training text


@pytest.mark.parametrize("size", [2, 5, 64, 1 << 18])
def test_blocks_are_the_whole_text_cut_before_white_space_that_follows_something_else(size):
    text = "Grüße,\n\n  it's  a \t test\n\n\n    x = 1\r\n\n end \n" * 7
    found = list(blocks([string_part("a", text), string_part("b", "last")], size))
    whole = io.StringIO(text, newline=None).read() + "\n\nlast"
    assert "".join(found) == whole
    assert len(found) > 1 or size > len(whole)
    for left, right in pairwise(found):
        assert not left[-1].isspace()
        assert right[0] in " \n"


def test_a_long_text_is_never_held_whole(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("some words on a line\n" * 50_000)
    longest = max(len(block) for block in blocks([corpora.file_part(path)], size=1000))
    assert longest < 2000


def test_shakespeare_is_split_90_5_5_by_characters(tmp_path, monkeypatch):
    text = "".join(chr(97 + number % 26) + " " for number in range(500))
    written(tmp_path / "root" / "text" / "tinyshakespeare", {"input": text})
    monkeypatch.setattr(corpora, "SHAKESPEARE", corpora.RemoteFile(corpora.SHAKESPEARE.path, None, 1000, ()))
    splits = find_texts("tinyshakespeare", tmp_path / "root").splits
    assert ["".join(blocks(parts)) for parts in splits.values()] == [text[:900], text[900:950], text[950:]]


WIKI = {  # as published: one space at both ends of a line, empty lines too
    "train": " \n = Title = \n \n The <unk> sat . \n" * 9,
    "valid": " \n It sat . \n",
    "test": " \n <unk> . \n",
}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive in the publisher's layout, which the checksum in the list is made to fit."""
    path = tmp_path / "root" / "text" / "wikitext-103" / "wikitext-103-v1.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for split, text in WIKI.items():
            file.writestr(f"wikitext-103/wiki.{split}.tokens", text)
    monkeypatch.setitem(
        corpora.WIKITEXT, "wikitext-103", (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
    )
    return tmp_path / "root"


def test_wikitext_is_read_from_the_archive_and_its_words_are_counted_with_a_token_a_line(archive):
    corpus = load_corpus("wikitext-103", archive, size=300, lower=True)
    assert corpus.vocabulary.decode(corpus.train) == WIKI["train"].lower()
    assert corpus.words == {"train": 9 * (7 + 4), "val": 3 + 2, "test": 2 + 2}
    assert sorted(path.name for path in archive.rglob("*") if path.is_file()) == ["wikitext-103-v1.zip"]


def test_the_publishers_unpacked_files_are_taken_too(tmp_path):
    folder = tmp_path / "root" / "text" / "wikitext-2"
    folder.mkdir(parents=True)
    for split, text in WIKI.items():
        (folder / f"wiki.{split}.tokens").write_text(text)
    assert load_corpus("wikitext-2", tmp_path / "root", size=300).words["val"] == 5


def test_a_wikitext_of_which_only_the_validation_text_is_there_names_what_is_missing(tmp_path):
    written(tmp_path / "root" / "text" / "wikitext-2", {"valid": WIKI["valid"]})
    with pytest.raises(UserError, match=r"wikitext-2 lacks train\.txt and test\.txt .*published archive"):
        load_corpus("wikitext-2", tmp_path / "root")


def test_wikitext_has_mirrors_and_a_checksum():
    for name in corpora.WIKITEXT:
        remote = corpora.wikitext_archive(name)
        assert remote.path == f"text/{name}/{name}-v1.zip"
        assert len(remote.urls) == 3
        assert all(url.startswith("https://") and url.endswith(f"{name}-v1.zip") for url in remote.urls)
        assert len(remote.sha256) == 64


def test_unknown_names_and_settings_are_errors_that_list_the_known_ones(tmp_path):
    with pytest.raises(
        UserError, match=r"--dataset wikitxt.*synthetic, docs, tinyshakespeare, wikitext-2, wikitext-103"
    ):
        load_corpus("wikitxt")
    with pytest.raises(UserError, match=r"--vocabulary words.*bpe or char"):
        load_corpus(vocabulary="words")
    with pytest.raises(UserError, match=r"--vocabulary-size 100.*256"):
        load_corpus(size=100)
    with pytest.raises(UserError, match=r"--text-dir .*nowhere: no such folder"):
        load_corpus(text_dir=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"corpus docs was not found.*text/docs/train\.txt\.xz"):
        load_corpus("docs", tmp_path)
