"""The real corpora below $DFA_DATA have the sizes that their publishers state."""

import os
from pathlib import Path

import pytest

from harness.errors import UserError
from nlp.text.blocks import blocks, count_words, file_part
from nlp.text.corpora import find_texts
from nlp.text.load import load_corpus

pytestmark = pytest.mark.data


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text_root():
    """The data root, with texts in it."""
    root = os.environ.get("DFA_DATA")
    if not root or not (Path(root) / "text").is_dir():
        pytest.skip("needs the folder text below $DFA_DATA")
    return Path(root)


def test_docs_has_its_stated_words(text_root):
    splits = find_texts("docs", text_root).splits
    found = {split: sum(map(count_words, blocks(parts))) for split, parts in splits.items()}
    assert found == {"train": 3_027_089, "val": 72_030, "test": 72_426}


def test_shakespeare_has_its_characters(text_root):
    corpus = load_corpus("tinyshakespeare", text_root, vocabulary="char")
    assert [len(corpus.train), len(corpus.val), len(corpus.test)] == [1_003_854, 55_770, 55_770]
    assert corpus.vocabulary.size == 65 + 1
    assert corpus.vocabulary.decode(corpus.train[:14]) == "First Citizen:"


def test_wikitext_2_has_the_published_number_of_validation_words(text_root):
    path = text_root / "text" / "wikitext-2" / "valid.txt"
    assert sum(count_words(block, line_ends=True) for block in blocks([file_part(path)])) == 217_646
    with pytest.raises(UserError, match=r"lacks train\.txt and test\.txt"):
        load_corpus("wikitext-2", text_root)
