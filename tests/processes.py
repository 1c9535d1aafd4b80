"""Processes of one gloo group, for the tests that need real ones."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed


def in_two_processes(work: Callable[..., None], folder: Path, *args: Any) -> None:
    """Run ``work(rank, folder, *args)`` as rank 0 and 1; raises what a rank raises.

    Args:
        work: A function of a module, so that a fresh interpreter can import it. It leaves its results in the folder.
        folder: An empty folder; the ranks meet in it.
        *args: Whatever else `work` needs.
    """
    in_processes(2, work, folder, *args)


def in_processes(number: int, work: Callable[..., None], folder: Path, *args: Any) -> None:
    """As `in_two_processes`, for any number of ranks."""
    torch.multiprocessing.spawn(_rank, (number, work, folder, *args), nprocs=number)


def _rank(rank: int, number: int, work: Callable[..., None], folder: Path, *args: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=number)
    work(rank, folder, *args)
    distributed.barrier()
    distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's shutdown: a thread of gloo that wants its lock by then aborts the process, now and then.
    os._exit(0)
