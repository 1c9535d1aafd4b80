"""Training without stored graphs in two processes."""

from __future__ import annotations

import pytest
import torch

from tests.processes import in_two_processes
from tests.tinydfa.memory.replay_ranks import CASES, SHARDED, work


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    in_two_processes(work, folder)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_ddp_averages_the_same_gradients(name, ranks):
    for rank in ranks:
        found, expected = rank[name, False], rank[name, True]
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, msg=key)
            torch.testing.assert_close(found[key], ranks[0][name, False][key], rtol=0, atol=0)


@pytest.mark.parametrize("name", SHARDED)
def test_fsdp2_shards_the_same_gradients(name, ranks):
    for rank in ranks:
        found, expected = rank["sharded", name, False], rank["sharded", name, True]
        assert found.keys() == expected.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(found[key], gradient, msg=key)


def test_a_search_for_unused_parameters_is_refused(ranks):
    assert all("Leave find_unused_parameters out" in rank["refused"] for rank in ranks)
