"""The cache of token ids: memory-mapped files, encoded once, under a key of their content.

    <cache>/nlp/<key>/
        vocabulary.json              learnt from the training text alone
        train.bin val.bin test.bin   the ids, one after another, of the vocabulary's dtype
        counts.json                  tokens and words of each

The folder is renamed into place when it is complete. The key depends on the texts, on how the vocabulary is learnt, and
on the version of `tokenizers`. One process makes the folder; others that want it meanwhile wait.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from harness.data import cache_dir
from harness.data.cache import make_once
from harness.errors import UserError
from harness.run.progress import track
from nlp.text.blocks import blocks, count_words
from nlp.text.corpora import FILES, Texts
from nlp.text.vocabulary import Vocabulary, train_vocabulary

FORMAT = 1  # increased when the same texts and settings give other tokens
NEW_CACHE = "Free some space, or set TINYDFA_CACHE to another folder"


@dataclass(frozen=True)
class Tokens:
    """The tokens of all splits of a corpus."""

    vocabulary: Vocabulary
    ids: dict[str, np.ndarray]  # of "train", "val" and "test", [N], memory-mapped
    words: dict[str, int]


def tokenise(texts: Texts, kind: str, size: int, lower: bool) -> Path:
    """The folder of a corpus' tokens in the cache, made if it is not there; `read_tokens` opens it.

    Args:
        texts: The corpus.
        kind, size, lower: As for `train_vocabulary`.

    Raises:
        UserError: a text is empty, damaged or not UTF-8, or the cache cannot be written.
    """
    folder = cache_dir() / "nlp" / content_key(texts, kind, size, lower)

    def make(partial: Path) -> None:
        make_tokens(partial, texts, kind, size, lower)

    return make_once(folder, make, NEW_CACHE, is_whole=lambda folder: read_tokens(folder) is not None)


def content_key(texts: Texts, kind: str, size: int, lower: bool) -> str:
    """A hash of all that decides the tokens, 32 hexadecimal digits."""
    digests = {split: [part.digest for part in parts] for split, parts in texts.splits.items()}
    how = [kind, lower, texts.line_ends, *([size, version("tokenizers")] if kind == "bpe" else [])]
    return hashlib.sha256(json.dumps([FORMAT, how, digests]).encode()).hexdigest()[:32]


def make_tokens(folder: Path, texts: Texts, kind: str, size: int, lower: bool) -> None:
    """Learn the vocabulary and encode all splits into the empty `folder`."""
    training = track(blocks(texts.splits["train"]), f"vocabulary of {texts.name}")
    vocabulary = train_vocabulary(kind, training, size, lower)
    counts = {}
    for split, parts in texts.splits.items():
        pieces = track(blocks(parts), f"tokens of {texts.name}, {split}")
        counts[split] = write_ids(folder / f"{split}.bin", pieces, vocabulary, texts.line_ends)
        if counts[split]["words"] == 0:
            raise UserError(f"the {FILES[split]} text of {texts.name} is empty. Give one with words in it.")
    (folder / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def write_ids(path: Path, pieces: Iterable[str], vocabulary: Vocabulary, line_ends: bool = False) -> dict[str, int]:
    """Encode a text into a file, holding one piece of it at a time.

    Returns:
        How many "tokens" and "words" it has.
    """
    counts = {"tokens": 0, "words": 0}
    with open(path, "wb") as file:
        for piece in pieces:
            ids = vocabulary.encode(piece)
            file.write(ids.tobytes())
            counts["tokens"] += len(ids)
            counts["words"] += count_words(piece, line_ends)
        file.flush()
        os.fsync(file.fileno())
    return counts


def read_tokens(folder: Path) -> Tokens | None:
    """What `make_tokens` left; None if there is nothing, or if it was damaged since."""
    try:
        vocabulary = Vocabulary.from_json((folder / "vocabulary.json").read_text(encoding="utf-8"))
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        paths = {split: folder / f"{split}.bin" for split in FILES}
        ids = {split: np.memmap(path, vocabulary.dtype, mode="r") for split, path in paths.items()}
        if any(len(ids[split]) != counts[split]["tokens"] for split in FILES):
            return None
        return Tokens(vocabulary, dict(ids), {split: counts[split]["words"] for split in FILES})
    except (OSError, ValueError, KeyError, UserError):
        return None
