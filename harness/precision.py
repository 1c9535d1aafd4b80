"""Products in bfloat16: factors rounded to 8 bits of mantissa, sums in float32.

On a CPU oneDNN rounds the factors itself and hands float32 back, which costs less than autocast; elsewhere autocast
does it. Both hold within a `with` alone: data, rays and scores that are computed outside of it stay exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def products(precision: str) -> Iterator[None]:
    """What a CPU does within, forward and backward, in float32 products and convolutions.

    Args:
        precision: "fp32": exact ones; "bf16": of rounded factors.
    """
    onednn: Any = torch.backends.mkldnn  # its settings are not in torch's type stubs
    before = onednn.matmul.fp32_precision, onednn.conv.fp32_precision
    onednn.matmul.fp32_precision = onednn.conv.fp32_precision = "bf16" if precision == "bf16" else "ieee"
    try:
        yield
    finally:
        onednn.matmul.fp32_precision, onednn.conv.fp32_precision = before


def autocast(precision: str, x: Tensor) -> torch.autocast:
    """The context of a forward pass on `x`: autocast to bfloat16 where a GPU is to round the factors."""
    device = x.device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16" and device != "cpu")
