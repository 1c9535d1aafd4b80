"""Batches of a token stream in which every token but the first is predicted exactly once.

A stream of N tokens has N - 1 predictions: each token from those before it in its chunk. They are cut into windows of
T, of which only the last may be shorter, and the windows are assigned to B columns as contiguous runs whose lengths
differ by one at most. Step k takes the k-th window of every column. So every token is used exactly once, and rows may
be empty in the last step only. A batch always has the shape [B, T], for `torch.compile`; where nothing is predicted
the target is IGNORED, which `cross_entropy` leaves out.

Chunks are independent: no state is carried from one to the next, as in the code release of arXiv 2006.12878.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.processes import ALONE, Processes

IGNORED = -100  # torch's default ignore_index


class Chunk(NamedTuple):
    """One step's part of a stream."""

    x: Tensor  # int64 [B, T]: this process's columns; 0 where nothing is predicted
    y: Tensor  # int64 [B, T]: the token after each of x; IGNORED where nothing is predicted
    tokens: int  # predictions over all processes, the divisor of a summed loss


def chunk_count(length: int, batch: int, chunk: int) -> int:
    """Steps that a stream of `length` tokens has.

    Example:
        >>> chunk_count(1001, batch=4, chunk=100)  # 10 windows: columns of 3, 3, 2 and 2
        3
    """
    return math.ceil(math.ceil((length - 1) / chunk) / batch)


def chunks(
    tokens: np.ndarray,
    batch: int,
    chunk: int,
    device: torch.device | str,
    *,
    start: int = 0,
    processes: Processes = ALONE,
    name: str = "the text",
) -> Iterator[Chunk]:
    """One pass over a stream.

    Args:
        tokens: The stream, ``[N]``; read as it is needed.
        batch: Columns B, over all processes; each process gets its share of them.
        chunk: Tokens T of a window.
        device: Where the batches go.
        start: Steps to skip, of a resumed run.
        processes: Which process this is, of how many. All have the same number of steps, and in the last of them one
            may have nothing to predict.
        name: What the stream is called in messages.

    Raises:
        UserError: the stream is shorter than one window, or there are more processes than columns.
    """
    if len(tokens) < chunk + 1:
        raise UserError(
            f"{name} has {len(tokens):,} tokens, and a chunk of {chunk} needs {chunk + 1:,}. Use a longer text, or a "
            f"shorter --chunk."
        )
    if processes.size > batch:
        raise UserError(
            f"--batch {batch} leaves nothing for some of {processes.size} processes. Give at least {processes.size}."
        )
    return _steps(tokens, batch, chunk, torch.device(device), start, processes)


def _steps(
    tokens: np.ndarray, batch: int, chunk: int, device: torch.device, start: int, processes: Processes
) -> Iterator[Chunk]:
    predictions = len(tokens) - 1
    share, longer = divmod(math.ceil(predictions / chunk), batch)
    columns = np.arange(batch)
    firsts = columns * share + np.minimum(columns, longer)  # the first window of each column
    lengths = share + (columns < longer)
    for step in range(start, chunk_count(len(tokens), batch, chunk)):
        starts = (firsts + step) * chunk
        predicted = np.where(step < lengths, np.minimum(predictions - starts, chunk), 0)  # of each row
        x, y = _rows(tokens, processes.share(starts), processes.share(predicted), chunk)
        yield Chunk(_sent(x, device), _sent(y, device), int(predicted.sum()))


def _rows(tokens: np.ndarray, starts: np.ndarray, predicted: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of some windows, ``[B, T]`` each, of which the first `predicted` of a row count."""
    offsets = np.arange(chunk)
    places, counts = starts[:, None] + offsets, offsets < predicted[:, None]
    x = np.where(counts, tokens.take(places, mode="clip").astype(np.int64), 0)
    y = np.where(counts, tokens.take(places + 1, mode="clip").astype(np.int64), IGNORED)
    return x, y


def _sent(array: np.ndarray, device: torch.device) -> Tensor:
    """The array on `device`; the copy to a GPU is asynchronous."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
