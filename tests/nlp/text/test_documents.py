"""A folder of one's own texts: its splits, the names and encodings of other people's files, and what is refused."""

import bz2
import gzip
import hashlib
import lzma
import os
import re
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from harness.errors import UserError
from nlp.text import corpora
from nlp.text.blocks import blocks
from nlp.text.corpora import find_texts, own_texts
from nlp.text.load import load_corpus
from tests.nlp.text.texts import TEXTS, made, written

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("compressed", [False, True])
def test_an_own_folder_of_three_files_is_encoded_whole(folder, kind, compressed):
    if compressed:
        for path in list(folder.iterdir()):
            path.with_suffix(".txt.xz").write_bytes(lzma.compress(path.read_bytes()))
            path.unlink()
    corpus = load_corpus(text_dir=folder, vocabulary=kind, size=300)
    for ids, split in ((corpus.train, "train"), (corpus.test, "test")):
        assert corpus.vocabulary.decode(ids) == TEXTS[split]
    assert corpus.words == {"train": 240, "val": 4, "test": 3}
    assert corpus.name == "own"
    assert isinstance(corpus.train, np.memmap)


def test_documents_are_split_by_their_relative_paths_and_hidden_ones_are_left_out(tmp_path, monkeypatch):
    names = [f"{folder}/{number}{end}" for folder in ("a", "b/c") for number in range(60) for end in (".md", ".rst")]
    for root in ("here", "there"):
        for name in [*names, ".git/x.txt", "b/.hidden.md", "picture.png"]:
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"text of {name}\n")
    here, there = (own_texts(tmp_path / root).splits for root in ("here", "there"))
    found = {
        split: [Path(part.name).relative_to(tmp_path / "here").as_posix() for part in here[split]] for split in here
    }
    assert sorted(chain.from_iterable(found.values())) == sorted(names)
    assert [[part.digest for part in parts] for parts in here.values()] == [
        [part.digest for part in parts] for parts in there.values()
    ]
    assert len(found["train"]) > 200
    assert "".join(blocks(here["val"])) == "\n\n".join(f"text of {name}\n" for name in found["val"])


def test_too_few_documents_for_a_split_is_an_error_that_names_it(tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "one.txt").write_text("one")
    with pytest.raises(UserError, match=r"has 1 documents .*none of them fell to"):
        load_corpus(text_dir=tmp_path / "few")


def filed(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the text {name}")
    return folder


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "dev", "TEST")])
def test_folders_called_train_valid_and_test_are_the_split(tmp_path, names):
    filed(tmp_path, [f"{name}/{deep}{number}.txt" for name in names for number in range(3) for deep in ("", "a/")])
    for split, parts in zip(("train", "val", "test"), own_texts(tmp_path).splits.values(), strict=True):
        text = "".join(blocks(parts))
        folder = dict(zip(("train", "val", "test"), names, strict=True))[split]
        assert sorted(text.split("\n\n")) == sorted(
            f"the text {folder}/{deep}{number}.txt" for number in range(3) for deep in ("", "a/")
        )


@pytest.mark.parametrize("names", [("train", "test"), ("train", "valid", "dev", "test")])
def test_folders_of_a_split_that_are_not_one_each_are_no_filed(tmp_path, names):
    filed(tmp_path, [f"{name}/{number}.txt" for name in names for number in range(200)])
    with pytest.raises(UserError, match="and not one called valid that holds documents"):
        own_texts(tmp_path)


def test_a_folder_called_test_among_documents_is_none_of_a_split(tmp_path):
    filed(tmp_path, [f"{name}/{number}.txt" for name in ("test", "howto") for number in range(200)])
    assert sum(map(len, own_texts(tmp_path).splits.values())) == 400


def test_documents_are_found_where_links_lead_and_each_once(tmp_path):
    folder = filed(tmp_path / "own", [f"{number}.txt" for number in range(200)])
    filed(tmp_path / "more", [f"{number}.txt" for number in range(9)])
    (folder / "linked").symlink_to(tmp_path / "more")
    (folder / "again").symlink_to(folder)
    assert sum(map(len, own_texts(folder).splits.values())) == 209


def test_a_document_that_is_a_pipe_or_a_link_to_nothing_is_named(tmp_path):
    folder = filed(tmp_path, [f"{number}.txt" for number in range(200)])
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(UserError, match=r"pipe\.txt is no plain file\. Remove it"):
        own_texts(folder)
    (folder / "pipe.txt").unlink()
    (folder / "lost.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"lost\.txt is a link to a file that is not there\. Remove it"):
        own_texts(folder)


@pytest.mark.parametrize("missing", ["train", "valid", "test"])
def test_a_missing_split_is_named(folder, missing):
    (folder / f"{missing}.txt").unlink()
    with pytest.raises(UserError, match=rf"own lacks {missing}\.txt .*: the {missing} text\. Add what is missing"):
        load_corpus(text_dir=folder)


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_an_empty_split_is_named_and_nothing_is_kept(folder, cache, text):
    (folder / "valid.txt").write_text(text)
    with pytest.raises(UserError, match="the valid text of own is empty"):
        load_corpus(text_dir=folder)
    assert made(cache) == []


def test_bytes_that_are_not_utf8_are_named_by_file_and_place(folder, cache):
    content = "é".encode() * 5 + b"word\r\n" * 100_000 + b"\xe9t\xe9"
    (folder / "train.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"own/train\.txt is not UTF-8 text: byte 600010 .*0xe9"):
        load_corpus(text_dir=folder)
    (folder / "train.txt").write_bytes(b"a character cut short \xc3")
    with pytest.raises(UserError, match=r"own/train\.txt is not UTF-8 text: byte 22 .*0xc3"):
        load_corpus(text_dir=folder)
    assert made(cache) == []


def test_a_damaged_xz_file_is_named(folder):
    (folder / "test.txt").unlink()
    (folder / "test.txt.xz").write_bytes(lzma.compress(os.urandom(1000))[:-40])
    with pytest.raises(UserError, match=r"test\.txt\.xz is damaged"):
        load_corpus(text_dir=folder)


def test_line_ends_and_byte_order_marks_are_read_as_pythons_open_does(folder):
    (folder / "test.txt").write_bytes("\ufeffone\r\ntwo\rthree\n".encode())
    assert "".join(blocks(own_texts(folder).splits["test"])) == "one\ntwo\nthree\n"


NAMES = {
    "val": ("train.txt", "val.txt", "test.txt"),
    "dev": ("train.txt", "dev.txt", "test.txt"),
    "validation": ("training.txt", "validation.txt", "test.txt"),
    "raw": ("wiki.train.raw", "wiki.valid.raw", "wiki.test.raw"),
    "tokens": ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
    "ptb": ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"),
    "upper": ("TRAIN.TXT", "Valid.Txt", "test.TXT"),
    "gz": ("train.txt.gz", "valid.txt.gz", "test.txt.gz"),
    "bz2": ("train.txt.bz2", "valid.txt", "test.txt.XZ"),
}


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def text_of(parts) -> str:
    return "".join(blocks(parts))


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_the_three_texts_are_found_under_the_names_that_people_give_them(tmp_path, names):
    for name, text in zip(names, TEXTS.values(), strict=True):
        content = text.encode()
        (tmp_path / name).write_bytes(PACK.get(Path(name).suffix.lower(), bytes)(content))
    (tmp_path / "notes.pdf").write_bytes(b"")
    splits = own_texts(tmp_path).splits
    assert {split: text_of(parts) for split, parts in splits.items()} == {
        "train": TEXTS["train"],
        "val": TEXTS["valid"],
        "test": TEXTS["test"],
    }


def test_what_a_folder_lacks_is_told_with_what_it_has(tmp_path):
    for name in ("train.txt", "tset.txt", "val.txt"):
        (tmp_path / name).write_text("words")
    with pytest.raises(UserError, match=r"lacks test\.txt .*Its files are train\.txt, tset\.txt, val\.txt\."):
        own_texts(tmp_path)


def test_two_files_for_one_split_are_refused(folder):
    (folder / "dev.txt").write_text("other words")
    with pytest.raises(UserError, match=r"dev\.txt and valid\.txt are both the text of one split"):
        own_texts(folder)


def test_a_plain_file_is_taken_before_its_compressed_copy(folder):
    (folder / "train.txt.gz").write_bytes(gzip.compress(b"old"))
    assert text_of(own_texts(folder).splits["train"]) == TEXTS["train"]


def test_raw_wikitext_is_not_taken_for_the_published_text(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "WIKITEXT_MIRRORS", ())
    folder = tmp_path / "text" / "wikitext-2"
    folder.mkdir(parents=True)
    for name in NAMES["raw"]:
        (folder / name).write_text("words")
    with pytest.raises(UserError, match="the raw version is another text: --text-dir"):
        find_texts("wikitext-2", tmp_path)


def test_a_compressed_text_is_decompressed_whatever_its_name(tmp_path):
    for name, pack in (("train.txt", gzip.compress), ("valid.txt", lzma.compress), ("test.txt", bz2.compress)):
        (tmp_path / name).write_bytes(pack(TEXTS[name[:-4]].encode()))
    splits = own_texts(tmp_path).splits
    assert [text_of(splits[split]) for split in ("train", "val", "test")] == list(TEXTS.values())


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("damage", ["cut", "changed", "plain"])
def test_a_damaged_compressed_text_is_named(folder, suffix, damage):
    content = PACK[suffix](TEXTS["train"].encode())
    middle = len(content) // 2
    changed = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    (folder / f"train.txt{suffix}").write_bytes({"cut": content[:-9], "changed": changed, "plain": b"words"}[damage])
    (folder / "train.txt").unlink()
    with pytest.raises(UserError, match=rf"train\.txt{suffix}"):
        text_of(own_texts(folder).splits["train"])


def documents(folder: Path, count: int = 300) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.txt").write_text("some words\n")
    return folder


def test_a_document_whose_name_is_no_utf_8_is_read_and_moves_no_other(tmp_path):
    folder = documents(tmp_path / "own")
    before = {split: {part.name for part in parts} for split, parts in own_texts(folder).splits.items()}
    odd = os.fsencode(folder) + b"/r\xe9sum\xe9.txt"
    try:
        Path(os.fsdecode(odd)).write_text("a word\n")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    after = {split: {part.name for part in parts} for split, parts in own_texts(folder).splits.items()}
    assert sum(map(len, after.values())) == 301
    share = int(hashlib.sha256(b"r\xe9sum\xe9.txt").hexdigest()[:8], 16) % 100
    home = "train" if share < 96 else "val" if share < 98 else "test"
    assert after == before | {home: before[home] | {os.fsdecode(odd)}}
    assert load_corpus(text_dir=folder, vocabulary="char").words["train"] == 2 * len(after["train"])


def test_a_folder_whose_name_is_no_utf_8_has_a_name_that_can_be_printed(tmp_path, monkeypatch):
    folder = tmp_path / os.fsdecode(b"t\xe9xte")
    try:
        written(folder, TEXTS)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    monkeypatch.chdir(folder)
    assert own_texts(Path(".")).name == "t\N{REPLACEMENT CHARACTER}xte"
    assert own_texts(written(tmp_path / "v1.2", TEXTS)).name == "v1.2"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_of_documents_that_may_not_be_read_is_named(tmp_path):
    folder = documents(tmp_path / "own")
    (folder / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match=r"cannot read .*closed"):
        own_texts(folder)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be", "windows-1252"])
def test_the_encoding_that_an_error_recommends_gives_the_text_back(folder, encoding):
    content = "Das Haus ist groß.\n".encode(encoding)
    (folder / "train.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.txt") as caught:
        text_of(own_texts(folder).splits["train"])
    [named] = re.findall(r"iconv -f (\S+)", str(caught.value))
    assert content.decode(named) == "Das Haus ist groß.\n"
