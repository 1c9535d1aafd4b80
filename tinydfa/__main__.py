"""What tinydfa finds on this machine: versions, devices, rules, and whether compile, bf16 and distributed work.

    python -m tinydfa
    python -m tinydfa --limit 300    # seconds that a trial may take

Each of the three is really tried, on a small model that DFA trains, in a process of its own (`tinydfa.trials`).
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from textwrap import fill

import numpy
import torch

import tinydfa
from tinydfa.rules import registered
from tinydfa.trials import TRIALS, attempt

WORD = 14  # characters before what is said
LIMIT = 120.0  # seconds; a first compilation takes 10 to 60


def versions() -> str:
    """The versions that decide what works."""
    return f"tinydfa {tinydfa.__version__}, torch {torch.__version__}, numpy {numpy.__version__}"


def devices() -> Iterator[str]:
    """The devices that torch can compute on, with their names."""
    yield f"cpu ({platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"
    for index in range(torch.cuda.device_count()):
        gib = torch.cuda.get_device_properties(index).total_memory / 2**30
        yield f"cuda:{index} ({torch.cuda.get_device_name(index)}, {gib:.0f} GiB)"
    if torch.backends.mps.is_available():
        yield "mps"


def lines(limit: float) -> Iterator[tuple[str, str]]:
    """What is printed: a word, and what there is to say about it."""
    yield "versions", versions()
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for device in devices():
        yield "device", device
    yield "rules", ", ".join(registered())
    for name in TRIALS:
        yield name, attempt(name, limit)


def main(arguments: list[str] | None = None) -> None:
    """Print a line at a time, as it is found."""
    parser = argparse.ArgumentParser(prog="python -m tinydfa", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds a trial may take (default {LIMIT:g})")
    limit = parser.parse_args(arguments).limit
    if not limit > 0:
        parser.error(f"--limit {limit:g}: must be more than 0 seconds")
    for word, text in lines(limit):
        print(fill(text, 100, initial_indent=f"{word:<{WORD}}", subsequent_indent=" " * WORD), flush=True)


if __name__ == "__main__":
    main()
