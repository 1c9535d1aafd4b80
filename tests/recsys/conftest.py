"""A cache of their own for the tests, one thread, two logs of one format, and the real data where it is there."""

import os
from pathlib import Path

import pytest
import torch

from tests.recsys.raw_logs import raw_rows, write_rows


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What is derived from data goes to a temporary folder, shared by the tests of a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYDFA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data_dir():
    """The data root with Adult and MovieLens-100K."""
    root = os.environ.get("DFA_DATA")
    if not root or not all((Path(root) / name).is_dir() for name in ("adult", "ml-100k")):
        pytest.skip("needs adult and ml-100k below $DFA_DATA")
    return Path(root)


@pytest.fixture
def two_logs(tmp_path):
    """Two files of one format; the categories of the second have other counts, and so other ids."""
    return [write_rows(tmp_path / f"{seed}.txt", raw_rows(400, seed)) for seed in (3, 4)]
