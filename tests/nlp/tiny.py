"""A text that a tiny model learns something of within seconds, and settings for it."""

import numpy as np

from harness.options import make
from nlp.config import Config
from nlp.text.load import Corpus
from nlp.text.vocabulary import CharVocabulary

LETTERS = "abcdefghijkl"
TINY = {"layers": 2, "d_model": 16, "d_ff": 24, "heads": 2, "chunk": 8, "batch": 6, "device": "cpu"}


def tiny_corpus(letters=LETTERS, train=1200):
    """Each letter is one of two successors of the one before it, at random."""
    generator, size = np.random.default_rng(0), len(letters) + 1

    def text(length):
        ids = [1]
        for turn in generator.integers(2, size=length - 1):
            ids.append(1 + (2 * ids[-1] + int(turn)) % (size - 1))
        return np.array(ids, np.uint16)

    words = {"train": train // 4, "val": 60, "test": 60}
    return Corpus("tiny", text(train), text(240), text(250), words, CharVocabulary(letters))


def tiny_config(**options):
    return make(Config, **(TINY | {"steps": 24, "validate_every": 8, "lr": 0.01} | options))
