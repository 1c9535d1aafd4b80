"""Room for a feedback matrix ``[c, D]``: one that does not fit is refused before anything is drawn."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tinydfa.errors import ShapeError

PEAK = {"sign": 12.0, "sparse": 9.0}  # bytes an entry takes while it is drawn; of the others 4, those of a float32
CGROUP = Path("/sys/fs/cgroup")


def refuse_too_large(rows: int, columns: int, distribution: str, device: torch.device | None = None) -> None:
    """Refuse a matrix ``[rows, columns]`` that is larger than what is free.

    Args:
        rows: c.
        columns: D.
        distribution: It decides how much is needed while the matrix is drawn.
        device: Where it is to stand; None: the CPU, where it is drawn.

    Raises:
        ShapeError: It does not fit; the message says what does.
    """
    cuda = device is not None and device.type == "cuda"
    needed = rows * columns * (4.0 if cuda else PEAK.get(distribution, 4.0))
    free = free_on(device) if cuda else free_bytes()  # type: ignore[arg-type]
    if free is None or needed <= free:
        return
    raise ShapeError(
        f"a feedback matrix for an error of width c = {rows:,} and points of D = {columns:,} numbers would take "
        f"{needed / 1e9:,.3g} GB, and {free / 1e9:,.3g} GB are free. Let batch_dims count positions as samples, at the "
        "output and at the points, so that only channels are left as their widths: batch_dims=(0, 2, 3) for [B, c, H, "
        "W], (0, 1) for [B, T, c] (attachment.samples() tells the samples of points of another resolution). Or store "
        "no matrix: feedback=NeverStored() of tinydfa.projectors, which takes more time."
    )


def free_bytes() -> int | None:
    """Memory that this process can still get; None where the system does not say."""
    found = [free for free in (_machine(), _group()) if free is not None]
    return min(found, default=None)


def free_on(device: torch.device) -> int:
    """Memory of a GPU that is free, or cached by torch without being used."""
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _group() -> int | None:
    """What a container's limit leaves; what it caches of files can be given up."""
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return int(limit) - int(used) + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):  # none, or no limit ("max")
        return None
