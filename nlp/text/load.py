"""Corpora as token ids: what an experiment trains on, what it validates on, what it tests on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nlp.text.corpora import find_texts
from nlp.text.tokens import tokenise
from nlp.text.vocabulary import Vocabulary, check_choice


@dataclass(frozen=True)
class Corpus:
    """A text in tokens. The arrays are memory-mapped: what is read of them is loaded, and may be larger than memory."""

    name: str
    train: np.ndarray  # token ids, uint16 or int32, [N]
    val: np.ndarray
    test: np.ndarray
    words: dict[str, int]  # of the texts of "train", "val" and "test"; of WikiText with one more a line, as published
    vocabulary: Vocabulary


def load_corpus(
    dataset: str = "synthetic",
    data_dir: Path | None = None,
    *,
    vocabulary: str = "bpe",
    size: int = 8000,
    lower: bool = False,
    text_dir: Path | None = None,
) -> Corpus:
    """Find a corpus, learn its vocabulary from the training text, and encode it; the second time it is only opened.

    Args:
        dataset: "synthetic", which needs no files, "docs", "tinyshakespeare", "wikitext-2" or "wikitext-103".
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        vocabulary: "bpe", byte pairs, or "char", characters.
        size: Tokens of "bpe"; fewer if the text has not enough pairs.
        lower: Turn the text to lower case.
        text_dir: A folder of texts in place of `dataset`, see `nlp.text.corpora`.

    Raises:
        UserError: an unknown name or kind, a text that is missing, empty, damaged or not UTF-8, a cache that cannot be
            written.
    """
    check_choice(vocabulary, size)
    texts = find_texts(dataset, data_dir, text_dir)
    tokens = tokenise(texts, vocabulary, size, lower)
    return Corpus(name=texts.name, **tokens.ids, words=tokens.words, vocabulary=tokens.vocabulary)
