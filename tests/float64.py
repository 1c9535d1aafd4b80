"""Training in float64, for comparisons of two ways to train one model.

float32 rounds differently on every processor and in batches of other sizes. ReLU and Adam make such differences grow
from step to step, to 1e-4 of a loss after twenty. In float64 they stay below 1e-12, and a wrong rule does not.

    python -m tests.float64 recsys.train --model dcn ...    # any command, with float64 as torch's default type
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float64() -> Iterator[None]:
    """Make float64 torch's default type within: models made here have such weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    del sys.argv[0]
    with float64():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
