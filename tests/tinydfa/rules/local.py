"""The model and the data that tests of local errors train."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.tinydfa.learning import B, C
from tests.tinydfa.nets import fill
from tinydfa import DFALayer
from tinydfa.rules import LES

PRED, SIM = LES(lr=0.03), LES(lr=0.03, similarity=0.99, width=4)


class Tanh(nn.Module):
    """Two points, 5 and 4 wide."""

    def __init__(self, outputs: int = C) -> None:
        super().__init__()
        self.low, self.middle, self.top = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, outputs)
        self.points = nn.ModuleList([DFALayer(), DFALayer()])
        fill(self, torch.Generator().manual_seed(0))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.points[1](torch.tanh(self.middle(self.points[0](torch.tanh(self.low(x)))))))


def data(*shape: int, samples: int = B, classes: int = C) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, *shape, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (samples,), generator=generator)
