"""One thread, a cache of its own for every test, and the real images where there are some."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder; nothing is found in it, and the data root is not the user's."""
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DFA_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    """An empty data root."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def real_root():
    """The data root that $DFA_DATA named when the tests began."""
    return Path(os.environ.get("DFA_DATA", "no-such-folder"))


@pytest.fixture(scope="session")
def real_cache(tmp_path_factory):
    """A cache that tests on real images share, because decoding CIFAR-10 takes seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def data_dir(real_root, real_cache, cache, monkeypatch):
    """The data root with MNIST and CIFAR-10."""
    if not all((real_root / name).is_dir() for name in ("mnist", "cifar10")):
        pytest.skip("needs MNIST and CIFAR-10 below $DFA_DATA")
    monkeypatch.setenv("TINYDFA_CACHE", str(real_cache))
    return real_root
