"""One thread, a cache of the tests' own, and where the real scenes are."""

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


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """No test reads or writes the user's cache; the procedural scene is traced once for all tests."""
    before = os.environ.get("TINYDFA_CACHE")
    os.environ["TINYDFA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TINYDFA_CACHE"]
    else:
        os.environ["TINYDFA_CACHE"] = before


@pytest.fixture
def data_dir():
    """The data root with lego and fern."""
    root = os.environ.get("DFA_DATA")
    if not root or not ((Path(root) / "nerf_synthetic/lego").is_dir() and (Path(root) / "nerf_llff/fern").is_dir()):
        pytest.skip("needs nerf_synthetic/lego and nerf_llff/fern below $DFA_DATA")
    return Path(root)
