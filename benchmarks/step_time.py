"""Step time of every method against backpropagation: `python -m benchmarks.step_time`.

One step is forward, backward and SGD. All methods of a model take turns in one run; the ratio is the median over
rounds. The limit beside it counts matrix products: of the three that backpropagation does per layer (output, weight
gradient, input gradient) a method that broadcasts saves the input gradient and adds its share of one projection.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.memory import peak_of_step
from benchmarks.models import PostNormTransformer, mlp
from benchmarks.report import Column, Environment, save, show
from benchmarks.timing import interleave, ratio
from tinydfa import Method, attach


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model with its data and what its step may cost."""

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]
    points: str
    output: str | None
    limit: float  # of the GEMM count, for `dfa`
    target: float  # what we hold ourselves to, for `dfa`


def classes(batch: int, features: int) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, features), torch.randint(0, 10, (batch,))


def tokens(batch: int, length: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, vocabulary, (batch, length + 1))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
