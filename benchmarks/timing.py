"""Timing that survives a busy machine: all contestants take turns, and ratios are medians over rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import torch

Step = Callable[[], object]


def interleave(steps: dict[str, Step], rounds: int, warm_up: int = 3, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of every step in every round; within a round the steps run one after another, in rotating order."""
    names = list(steps)
    for name in names * warm_up:
        steps[name]()
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.disable()
    try:
        for number in range(rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                times[name].append(seconds(steps[name], device))
    finally:
        gc.enable()
    return times


def seconds(step: Step, device: str) -> float:
    """Wall-clock time of one step, the device's work included."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def ratio(times: dict[str, list[float]], name: str, to: str) -> float:
    """Median over rounds of the ratio within a round, so that a slow spell of the machine cancels."""
    return statistics.median(a / b for a, b in zip(times[name], times[to], strict=True))
