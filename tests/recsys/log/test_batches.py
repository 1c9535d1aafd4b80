"""The order of an epoch: every row once, decided by the seed, shared among processes, read front to back."""

import pytest
import torch

from harness.processes import Processes
from recsys.log import batches as module
from recsys.log.batches import batch_count, batches, in_whole_batches
from recsys.log.clicks import Clicks

CPU = torch.device("cpu")


class Watched(Clicks):
    """Clicks that note which rows are read."""

    def batch(self, index):
        READ.append(index)
        return super().batch(index)


READ: list[torch.Tensor] = []


@pytest.fixture
def clicks():
    READ.clear()
    fields = torch.stack([torch.arange(1000), torch.arange(1000) * 3], dim=1).int()
    return Watched(fields, (torch.arange(1000) % 7 == 0).to(torch.uint8))


@pytest.fixture(params=["in one pool", "in several pools"])
def pooled(request, monkeypatch):
    if request.param == "in several pools":
        monkeypatch.setattr(module, "POOL", 300)
        monkeypatch.setattr(module, "BLOCK", 50)


def epoch(clicks, size=64, seed=0, number=1, processes=None, skip=0):
    return list(batches(clicks, size, seed, number, CPU, processes or Processes(), skip))


def numbers(found):
    return torch.cat([batch.fields[:, 0] for batch in found]).tolist()


@pytest.mark.usefixtures("pooled")
def test_an_epoch_has_every_row_once_with_its_label(clicks):
    found = epoch(clicks)
    assert sorted(numbers(found)) == list(range(1000))
    for batch in found:
        assert batch.labels.tolist() == [float(row % 7 == 0) for row in batch.fields[:, 0].tolist()]
        assert torch.equal(batch.fields[:, 1], batch.fields[:, 0] * 3)
    assert [batch.rows for batch in found] == [64] * 15 + [40]


@pytest.mark.usefixtures("pooled")
def test_rows_are_read_front_to_back(clicks):
    epoch(clicks)
    assert all(bool((read.diff() > 0).all()) for read in READ)


@pytest.mark.usefixtures("pooled")
def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else(clicks):
    first, again = epoch(clicks), epoch(clicks)
    assert numbers(first) == numbers(again) != list(range(1000))
    assert numbers(first) != numbers(epoch(clicks, number=2))
    assert numbers(first) != numbers(epoch(clicks, seed=1))


@pytest.mark.usefixtures("pooled")
@pytest.mark.parametrize("skip", [1, 4, 7, 15, 16])
def test_what_is_left_of_an_epoch_goes_on_where_it_was_interrupted(clicks, skip):
    whole = epoch(clicks)[skip:]
    rest = epoch(clicks, skip=skip)
    assert [batch.rows for batch in rest] == [batch.rows for batch in whole]
    assert not whole or numbers(rest) == numbers(whole)


@pytest.mark.usefixtures("pooled")
def test_the_shares_of_three_processes_are_the_batches_of_one(clicks):
    whole = epoch(clicks)
    shares = [epoch(clicks, processes=Processes(rank, 3)) for rank in range(3)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares]
        assert sorted(numbers(parts)) == sorted(numbers([batch]))
        assert {part.rows for part in parts} == {batch.rows}
        assert max(len(part.labels) for part in parts) - min(len(part.labels) for part in parts) <= 1


def test_blocks_keep_a_pool_together_and_are_shuffled_within(monkeypatch):
    monkeypatch.setattr(module, "POOL", 300)
    monkeypatch.setattr(module, "BLOCK", 50)
    pools = list(module.pools(1000, 0, 1))
    assert len(pools) == 4
    for pool in pools:
        assert len(set((pool // 50).tolist())) * 50 == len(pool)
        assert not torch.equal(pool, pool.sort().values)


@pytest.mark.parametrize(
    ("rows", "sizes"), [(128 + 31, [64, 64]), (128 + 32, [64, 64, 32]), (20, [20]), (128, [64, 64])]
)
def test_a_rest_too_small_to_normalise_is_left_out_unless_it_is_all_there_is(rows, sizes):
    found = [len(part) for pool in in_whole_batches(rows, 64, 0, 1) for part in pool.split(64)]
    assert found == sizes
    assert batch_count(rows, 64) == len(sizes)
