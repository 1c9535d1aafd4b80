"""The batches of an epoch: in an order that a seed decides, shared among processes, read from a file front to back.

A part that fits the pool is shuffled as a whole. A larger one, which lies in a memory-mapped file, would cost one
access to the disk a row. It is cut into blocks of neighbouring rows; the blocks are shuffled, a pool of them is read
in the order of the file, and the rows of the pool are shuffled in memory.
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
FEWEST = 32  # rows of a last, smaller batch; fewer are left out, for batch normalisation's sake


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
        device: Where the batches are needed.
        processes: Those that share every batch.
        skip: Batches that were done before an interruption.
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
    """The numbers of all rows in the order of an epoch, a pool at a time, each but the last in whole batches."""
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
    """The numbers 0 to `rows` - 1 in a random order, at most about `POOL` at a time."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    if rows <= POOL:
        yield torch.randperm(rows, generator=generator)
        return
    for blocks in torch.randperm(-(-rows // BLOCK), generator=generator).split(max(1, POOL // BLOCK)):
        pool = (blocks[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        pool = pool[pool < rows]
        yield pool[torch.randperm(len(pool), generator=generator)]
