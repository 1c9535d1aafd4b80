"""An empty cache, and a folder of three texts."""

import pytest

from tests.nlp.text.texts import TEXTS, written


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DFA_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path / "own", TEXTS)
