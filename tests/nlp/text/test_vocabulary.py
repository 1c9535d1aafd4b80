"""Vocabularies: nothing is lost, cuts do not matter, and JSON carries all of it."""

import subprocess
import sys

import numpy as np
import pytest

from harness.errors import UserError
from nlp.text.blocks import blocks, string_part
from nlp.text.vocabulary import CharVocabulary, Vocabulary, train_vocabulary

TEXT = (
    "The cat sat on the mat; the dog didn't.\n\n    def cat(mat):\n        return mat[1:2]  # it's\n\n\n"
    "Naïve café, 1234 5678 и ещё.\tTab\n \n  end \n"
) * 20


@pytest.mark.parametrize(
    "text", [TEXT, "", "漢字 and 😀 that no training text had", "\x00\x1f \x85\u3000 odd spaces", "ΣΊΣΥΦΟΣ"]
)
def test_byte_pairs_give_back_any_text(text):
    vocabulary = train_vocabulary("bpe", [TEXT], size=400)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert ids.dtype == np.uint16
    assert len(ids) <= len(text.encode())


def test_lower_means_that_encoding_ignores_case():
    for kind in ("bpe", "char"):
        vocabulary = train_vocabulary(kind, [TEXT], size=400, lower=True)
        assert vocabulary.decode(vocabulary.encode("The CAT")) == "the cat"
        assert np.array_equal(vocabulary.encode("The CAT"), vocabulary.encode("the cat"))
    assert not any(character.isupper() for character in vocabulary.characters)


def test_byte_pairs_join_the_most_frequent_neighbours_first():
    vocabulary = train_vocabulary("bpe", ["ababababab abab cd"], size=256 + 2)
    assert vocabulary.merges == [("a", "b"), ("ab", "ab")]
    assert [vocabulary.decode([number]) for number in vocabulary.encode("ababab cd")] == ["abab", "ab", " ", "c", "d"]


def test_a_text_without_more_pairs_gives_a_smaller_vocabulary():
    assert train_vocabulary("bpe", ["abab abab abab"], size=1000).size < 270


@pytest.mark.parametrize("size", [2, 3, 10, 100])
def test_a_text_in_blocks_has_the_tokens_of_the_whole(size):
    vocabulary = train_vocabulary("bpe", [TEXT], size=500)
    pieces = [vocabulary.encode(block) for block in blocks([string_part("text", TEXT)], size)]
    assert len(pieces) > 10
    assert np.array_equal(np.concatenate(pieces), vocabulary.encode(TEXT))


def test_a_vocabulary_learnt_from_blocks_is_that_of_the_whole():
    pieces = list(blocks([string_part("text", TEXT)], 20))
    for kind in ("bpe", "char"):
        assert train_vocabulary(kind, pieces, 400).fingerprint == train_vocabulary(kind, [TEXT], 400).fingerprint


def test_the_same_text_gives_the_same_vocabulary_in_another_process():
    code = f"from nlp.text.vocabulary import *; print(train_vocabulary('bpe', [{TEXT!r}], 400).fingerprint)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == train_vocabulary("bpe", [TEXT], 400).fingerprint


def test_an_unseen_character_has_the_unknown_id_and_no_other_has():
    vocabulary = train_vocabulary("char", ["hello\n"])
    ids = vocabulary.encode("hexl\n😀")
    assert (ids == 0).tolist() == [False, False, True, False, False, True]
    assert vocabulary.decode(ids) == "he\ufffdl\n\ufffd"
    assert vocabulary.size == len(set("hello\n")) + 1
    assert sorted(vocabulary.encode("hello\n").tolist()) == [1, 2, 3, 4, 4, 5]


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("lower", [False, True])
def test_json_carries_all_of_a_vocabulary(kind, lower):
    vocabulary = train_vocabulary(kind, [TEXT], 400, lower)
    copy = Vocabulary.from_json(vocabulary.to_json())
    assert (copy.kind, copy.lower, copy.size) == (kind, lower, vocabulary.size)
    assert np.array_equal(copy.encode(TEXT), vocabulary.encode(TEXT))
    assert copy.to_json() == vocabulary.to_json()
    assert copy.fingerprint == vocabulary.fingerprint


def test_fingerprints_of_different_vocabularies_differ():
    made = [train_vocabulary("bpe", [TEXT], size, lower) for size in (300, 301) for lower in (False, True)]
    made += [CharVocabulary("ab"), CharVocabulary("ba"), CharVocabulary("ab", lower=True)]
    assert len({vocabulary.fingerprint for vocabulary in made}) == len(made)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"kind": "words", "lower": true}', '{"kind": "bpe"}'])
def test_a_file_that_is_no_vocabulary_is_an_error(text):
    with pytest.raises(UserError, match="not a vocabulary"):
        Vocabulary.from_json(text)
