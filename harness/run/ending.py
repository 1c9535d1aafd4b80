"""What a training prints at its end: a few lines for people, then one line of JSON for programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST = 1000  # bytes of the line for programs
SHOWN = 6  # metrics in the lines for people
# What is dropped from the line for programs if it is too long, and what it never contains.
DISPENSABLE = ("versions", "device", "commit", "processes")
LEFT_OUT = ("curves", "config")


def ending(result: Mapping[str, Any], folder: Path) -> str:
    """What was reached, how long it took, where it lies and how to look at it: three lines."""
    metrics = {name: value for name, value in result["metrics"].items() if value is not None}
    shown = ", ".join(f"{_words(name)} {value:.4g}" for name, value in list(metrics.items())[:SHOWN])
    more = f", and {len(metrics) - SHOWN} more" if len(metrics) > SHOWN else ""
    return (
        f"{result['model']} on {result['dataset']} by {result['method']}, seed {result['seed']}: {shown}{more}\n"
        f"{_duration(result['seconds'])} on {result['device']}; everything is in {folder}\n"
        f"curves: tensorboard --logdir {shlex.quote(str(folder))}"
    )


def short_result(result: Mapping[str, Any], folder: Path) -> str:
    """A result and its folder as one line of JSON of at most `LARGEST` bytes, without curves and configuration.

    Versions, device and commit are left out where they do not fit, then metrics, the last ones first.
    """
    short = {name: value for name, value in result.items() if name not in LEFT_OUT} | {"folder": str(folder)}
    for name in DISPENSABLE:
        if _size(short) > LARGEST:
            short.pop(name, None)
    metrics = dict(short["metrics"])
    while _size(short | {"metrics": metrics}) > LARGEST and metrics:
        metrics.popitem()
    return json.dumps(short | {"metrics": metrics}, allow_nan=False)


def _size(value: Any) -> int:
    return len(json.dumps(value).encode())


def _words(name: str) -> str:
    return name.replace("_", " ")


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{seconds:.1f} s" if minutes == 0 else f"{minutes} min {int(seconds) % 60} s"
