"""A sample of a tensor's values: enough to see that a second run of a model does not do what the first one did."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SAMPLES = 64
SLACK = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the largest sample; sums on a GPU may come in another order
COARSE = 0.05  # for half precision


def probe(value: Tensor) -> Tensor:
    """Some values from all over a tensor, ``[at most 64]``."""
    value = value.detach()
    return value.reshape(-1) if value.numel() == 0 or value.dim() == 0 else value[places(value.shape, value.device)]


@lru_cache(maxsize=256)
def places(shape: torch.Size, device: torch.device) -> tuple[Tensor, ...]:
    """Places of a tensor, evenly spread; the step shares no factor with a dimension, so that no column is favoured."""
    size = shape.numel()
    with torch.inference_mode(False):
        flat = torch.linspace(0, size - 1, min(SAMPLES, size), dtype=torch.float64, device="cpu").long()
        return tuple([index.to(device) for index in torch.unravel_index(flat, shape)])


def differ(one: Tensor, other: Tensor) -> bool:
    """Whether two samples are of other tensors."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return True
    if torch.equal(one, other) or one.numel() == 0:
        return False
    slack = SLACK.get(one.dtype, COARSE) * float(one.abs().nan_to_num().max())
    return not torch.allclose(one, other, rtol=0.0, atol=slack, equal_nan=True)
