"""The batches of an epoch, in a seeded order, sharded over processes, read from the file sequentially.

A part that fits into the pool is shuffled as a whole. A larger part lies in a memory-mapped file, where a full shuffle
would cost one disk access per row. It is cut into blocks of adjacent rows. The blocks are shuffled, a pool of them is
read in file order, and the rows of the pool are shuffled in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from harness.processes import Processes
from recsys.log.clicks import Clicks

POOL = 1 << 21  # rows shuffled at a time: 0.3 GB with Criteo's 39 fields
BLOCK = 1 << 12  # neighbouring rows that enter a pool together
FEWEST = 32  # rows of a last, smaller batch; fewer are dropped, because batch normalisation needs some


class Batch(NamedTuple):
    """This process's share of a batch."""

    fields: Tensor  # int32 [B, F]
    labels: Tensor  # float32 [B]
    rows: int  # in the shares of all processes together


def batches(
    clicks: Clicks, size: int, seed: int, epoch: int, device: torch.device, processes: Processes, skip: int = 0
) -> Iterator[Batch]:
    """The batches of one epoch.

    Args:
        clicks: What to train on.
        size: Rows of a batch, over all processes. The last batch of an epoch may be smaller.
        seed: Decides the order, together with the epoch; the same in every process.
        epoch: The epoch's number.
        device: Device of the batches.
        processes: The processes that share every batch.
        skip: Batches to skip, because they were done before an interruption.
    """
    for rows in in_whole_batches(len(clicks), size, seed, epoch):
        todo = rows[skip * size :]
        skip = max(0, skip - -(-len(rows) // size))
        if len(todo) == 0:
            continue
        shares = [processes.share(part) for part in todo.split(size)]
        ascending, order = torch.cat(shares).sort()
        fields, labels = (tensor.to(device) for tensor in clicks.batch(ascending))
        places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order))).to(device)
        sizes = [len(share) for share in shares]
        for place, part in zip(places.split(sizes), todo.split(size), strict=True):
            yield Batch(fields.index_select(0, place), labels.index_select(0, place), len(part))


def batch_count(rows: int, size: int) -> int:
    """How many batches of `size` an epoch of `rows` has.

    Example:
        >>> batch_count(1600, 800), batch_count(1631, 800), batch_count(1632, 800), batch_count(20, 800)
        (2, 2, 3, 1)
    """
    whole, rest = divmod(rows, size)
    return whole + (rest >= FEWEST or (rest > 0 and whole == 0))


def in_whole_batches(rows: int, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """The indices of all rows in the order of an epoch, a pool at a time; all pools but the last are whole batches."""
    rest = torch.empty(0, dtype=torch.int64)
    any_yet = False
    for pool in pools(rows, seed, epoch):
        joined = torch.cat([rest, pool])
        whole = len(joined) // size * size
        if whole:
            yield joined[:whole]
            any_yet = True
        rest = joined[whole:]
    if len(rest) >= FEWEST or (len(rest) and not any_yet):
        yield rest


def pools(rows: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """The indices 0 to `rows` - 1 in a random order, at most about `POOL` at a time."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    if rows <= POOL:
        yield torch.randperm(rows, generator=generator)
        return
    for blocks in torch.randperm(-(-rows // BLOCK), generator=generator).split(max(1, POOL // BLOCK)):
        pool = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        pool = pool[pool < rows]
        yield pool[torch.randperm(len(pool), generator=generator)]
