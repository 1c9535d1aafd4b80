"""Processes of one gloo group, for the tests that need real ones."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from tests.float64 import float64
from tinydfa.rules import registered

# Every rule of the library that broadcasts. Those that probe the model draw other noise on every process, as dropout
# does, so that two processes are not to be one.
MADE = {name: kind() for name, kind in registered().items()}
RULES = [name for name, rule in MADE.items() if rule.broadcasts and not getattr(rule, "probe_every", 0)]
RULES[RULES.index("tdfa")] = "tdfa(threshold=0.0001)"  # its own is the mean over the batch
RULES += ["calibrated(rule='sdfa',exact_every=3)"]


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


def curves_of_two(curves: Callable[[str], dict[str, Any]], names: Sequence[str], folder: Path) -> dict[str, Any]:
    """What ``curves(name)`` returns in the first of two processes, in float64, for every name."""
    in_two_processes(_write_curves, folder, curves, names)
    found: dict[str, Any] = json.loads((folder / "curves.json").read_text())
    return found


def assert_trained_as_one(rule: str, two: dict[str, Any], curves: Callable[[str], dict[str, Any]]) -> None:
    """Fail unless two processes, by `curves_of_two`, found what ``curves(rule)`` finds in this one, in float64."""
    with float64():
        one = curves(rule)
    assert two[rule].keys() == one.keys()
    for name, curve in one.items():
        assert two[rule][name] == pytest.approx(curve, rel=1e-9), name


def _write_curves(rank: int, folder: Path, curves: Callable[[str], dict[str, Any]], names: Sequence[str]) -> None:
    with float64():
        found = {name: curves(name) for name in names}
    if rank == 0:
        (folder / "curves.json").write_text(json.dumps(found))


def saved_by(number: int, work: Callable[..., None], folder: Path) -> list[Any]:
    """What each rank saved as ``<rank>.pt`` in ``work(rank, folder, number)``."""
    in_processes(number, work, folder, number)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(number)]


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
