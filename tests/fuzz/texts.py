"""Small valid texts: a folder with three files, and a folder of documents."""

import bz2
import gzip
import lzma
import random
from pathlib import Path

from nlp.text.load import load_corpus
from tests.fuzz.formats import Format

WORDS = ("the", "house", "is", "größer", "3.5", "times,", "0", "42", "–", "end.")
NAMES = (("train", "valid", "test"), ("train", "val", "test"), ("training", "dev", "test"))
PACKS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


def text(rng: random.Random, lines: int) -> bytes:
    return "".join(" ".join(rng.choices(WORDS, k=6)) + "\n" for _ in range(lines)).encode()


def make_splits(folder: Path, rng: random.Random) -> Path:
    """Three files, one of them perhaps compressed, under one of their usual names."""
    for name, lines in zip(rng.choice(NAMES), (20, 4, 4), strict=True):
        suffix = rng.choice(list(PACKS))
        (folder / f"{name}.txt{suffix}").write_bytes(PACKS[suffix](text(rng, lines)))
    return folder


def make_documents(folder: Path, rng: random.Random) -> Path:
    """Documents in two folders; so many that each split gets some."""
    for number in range(150):
        path = folder / ("a" if number % 2 else "b") / f"{number}.{('md', 'txt', 'rst')[number % 3]}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text(rng, 1))
    return folder


def read_texts(folder: Path) -> dict[str, object]:
    """A corpus as `nlp.train` reads it."""
    corpus = load_corpus(text_dir=folder, vocabulary="char")
    found = {split: getattr(corpus, split) for split in ("train", "val", "test")}
    for split, ids in found.items():
        assert len(ids) > 0
        assert int(ids.max()) < corpus.vocabulary.size
        assert corpus.words[split] > 0
        assert "\0" not in corpus.vocabulary.decode(ids)
    return {"words": corpus.words, "fingerprint": corpus.vocabulary.fingerprint} | {
        split: ids.copy() for split, ids in found.items()
    }


FORMATS = {
    "texts": Format(make_splits, read_texts),
    "documents": Format(make_documents, read_texts),
}
