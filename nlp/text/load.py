"""A corpus by name, as token ids for training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.processes import ALONE, Processes
from nlp.text.corpora import find_texts
from nlp.text.tokens import read_tokens, tokenise
from nlp.text.vocabulary import Vocabulary, check_choice


@dataclass(frozen=True)
class Corpus:
    """A text in tokens. The arrays are memory-mapped, so they may be larger than memory."""

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
    processes: Processes = ALONE,
) -> Corpus:
    """Find a corpus, learn its vocabulary from the training text, and encode it; tokens are cached.

    Of several processes the first does all that, and the others open the tokens that it left in the cache.

    Args:
        dataset: "synthetic", which needs no files, "docs", "tinyshakespeare", "wikitext-2" or "wikitext-103".
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        vocabulary: "bpe", byte pairs, or "char", characters.
        size: Tokens of "bpe"; fewer if the text has not enough pairs.
        lower: Turn the text to lower case.
        text_dir: A folder of texts in place of `dataset`, see `nlp.text.corpora`.
        processes: Those that train together.

    Raises:
        UserError: an unknown name or kind, a text that is missing, empty, damaged or not UTF-8, a cache that cannot be
            written.
    """
    check_choice(vocabulary, size)

    def find() -> tuple[str, Path]:
        texts = find_texts(dataset, data_dir, text_dir)
        return texts.name, tokenise(texts, vocabulary, size, lower)

    name, folder = processes.once(find)
    tokens = read_tokens(folder) or read_tokens(find()[1])  # absent on another machine, which has its own cache
    assert tokens is not None
    return Corpus(name=name, **tokens.ids, words=tokens.words, vocabulary=tokens.vocabulary)
