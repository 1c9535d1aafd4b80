"""A text for tiny models."""

import pytest

from tests.nlp.tiny import tiny_corpus


@pytest.fixture(scope="module")
def corpus():
    return tiny_corpus()
