"""Products in bfloat16: factors rounded to 8 bits of mantissa, sums in float32.

There are three kinds of CPUs. Where oneDNN rounds the factors of float32 products itself (Intel's AMX), that costs less
than autocast. Where the processor has bfloat16 products but oneDNN leaves float32 alone (AVX-512 with bf16), autocast
does it, as on a GPU. Others are slower by bfloat16: `check_precision` refuses it there, and `fastest` is fp32. Rounding
holds within a `with` alone: data, rays and scores that are computed outside of it stay exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from harness.errors import UserError

Precision = Literal["fp32", "bf16"]


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
    """The context of a forward pass on `x`: autocast to bfloat16, unless oneDNN rounds the factors."""
    device = x.device.type
    by_onednn = device == "cpu" and cpu_rounds()
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16" and not by_onednn)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or in its own type if that is more precise: what losses and sums are computed in.

    Example:
        >>> [at_least_float32(torch.ones(1, dtype=kind)).dtype for kind in (torch.bfloat16, torch.float64)]
        [torch.float32, torch.float64]
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def fastest(device: torch.device) -> Precision:
    """bf16 where `device` multiplies in it, else fp32: for runs so short that nothing but their time depends on it."""
    return "bf16" if device.type != "cpu" or cpu_multiplies() else "fp32"


def check_precision(precision: str, device: torch.device) -> None:
    """Raise `UserError` if `device` does not multiply in `precision`."""
    if precision == "bf16" and device.type == "cpu" and not cpu_multiplies():
        raise UserError(
            "--precision bf16: this processor does not multiply in bfloat16, and emulating it is slower than "
            "float32. Use --precision fp32, or a GPU."
        )


def cpu_multiplies() -> bool:
    """Whether this processor has products of bfloat16 numbers."""
    return cpu_rounds() or bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


@cache
def cpu_rounds() -> bool:
    """Whether oneDNN rounds factors on this processor, by the product of a number that bfloat16 rounds to 1."""
    x = torch.full((64, 64), 1 + 2.0**-12)
    with products("bf16"):
        return (x @ x)[0, 0].item() == 64
