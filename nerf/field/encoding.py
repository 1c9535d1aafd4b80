"""Positional encoding: coordinates as sines and cosines of growing frequency, so that a small network sees detail.

    x -> (x, sin(x), cos(x), sin(2 x), cos(2 x), ..., sin(2^(L-1) x), cos(2^(L-1) x))

Each entry stands for as many numbers as x has coordinates. NeRF (arXiv 2003.08934, eq. 4) has a factor pi and no x in
front; without the one and with the other it is what the release of arXiv 2006.12878 trained with.
"""

from __future__ import annotations

import torch
from torch import Tensor


def encode(x: Tensor, frequencies: int) -> Tensor:
    """The encoding of `x` with L `frequencies`: ``[..., c]`` to ``[..., c (1 + 2 L)]``.

    Example:
        >>> encode(torch.tensor([torch.pi / 4]), 2)
        tensor([ 7.8540e-01,  7.0711e-01,  7.0711e-01,  1.0000e+00, -4.3711e-08])
    """
    if frequencies == 0:
        return x
    powers = 2.0 ** torch.arange(frequencies, dtype=x.dtype, device=x.device)
    angles = x.unsqueeze(-2) * powers[:, None]  # [..., L, c]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-2)  # [..., L, 2, c]
    return torch.cat([x, waves.flatten(-3)], dim=-1)


def encoded_width(coordinates: int, frequencies: int) -> int:
    """How many numbers `encode` makes of `coordinates`."""
    return coordinates * (1 + 2 * frequencies)
