"""Small models with feedback points, and their gradients by autograd alone: what tests of learned feedback train."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.tinydfa.nets import fill
from tinydfa import DFALayer

B, C = 12, 3


class LinearTop(nn.Module):
    """Two points with nothing but matrices above them: the first feeds `middle @ top`, the second `top`."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.low, self.middle, self.top = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, C)
        self.norm = nn.BatchNorm1d(5) if dropout else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.points = nn.ModuleList([DFALayer(), DFALayer()])
        fill(self, torch.Generator().manual_seed(0))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.points[0](torch.tanh(self.dropout(self.norm(self.low(x)))))
        return self.top(self.points[1](self.middle(h)))

    def jacobians(self) -> list[Tensor]:
        top, middle = self.top.weight.detach(), self.middle.weight.detach()
        return [top @ middle, top]


class Tokens(nn.Module):
    """A sample has `tokens` rows at the point, and the output reads their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.point, self.top = nn.Linear(6, 5), DFALayer(batch_dims=(0, 1)), nn.Linear(5, C)
        fill(self, torch.Generator().manual_seed(0))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.point(torch.tanh(self.low(x))).mean(dim=1))


def data(samples: int = B, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, *shape, 6, generator=generator, dtype=torch.float64)
    return x, torch.randn(samples, C, generator=generator, dtype=torch.float64)


def loss_of(output: Tensor, y: Tensor) -> Tensor:
    return (output - y).square().sum(dim=1).mean()


def gradients(model: nn.Module, x: Tensor, y: Tensor, factor: float = 1.0) -> list[Tensor]:
    model.zero_grad()
    (factor * loss_of(model(x), y)).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def same(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-4) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=1e-6, check_dtype=False)


def backprop(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """By autograd alone, on a model that nothing was attached to."""
    return gradients(model, x, y)
