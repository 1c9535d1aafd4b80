"""Small networks for the tests, and what each rule says their gradients are, written by hand.

Nothing here calls the library except to place its points; widths differ everywhere, so that a wrong scale or a wrong
slice shows. Letters: B samples, c outputs, D width of the widest point, d width of a point, F feedback ``[c, D]``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tinydfa import DFALayer

WIDTHS = (6, 5, 4, 7, 3)  # D = 7, c = 3
Scale = Callable[[int], float]


class Mlp(nn.Module):
    """Tanh layers with a feedback point after each; no head."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        pairs = list(pairwise(widths[:-1]))
        self.hidden = nn.ModuleList(nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairs)
        self.points = nn.ModuleList(DFALayer() for _ in pairs)
        self.top = nn.Linear(widths[-2], widths[-1])
        fill(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        for layer, point in zip(self.hidden, self.points, strict=True):
            x = point(torch.tanh(layer(x)))
        return self.top(x)


class ConvNet(nn.Module):
    """Two convolutions and a linear layer, a point after each: widths 3*6*6, 2*4*4 and 5."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 3)
        self.fc, self.top = nn.Linear(2 * 4 * 4, 5), nn.Linear(5, 3)
        self.point1, self.point2, self.point3 = DFALayer(), DFALayer(), DFALayer()
        fill(self, torch.Generator().manual_seed(seed))

    def forward(self, x: Tensor) -> Tensor:
        x = self.point1(torch.tanh(self.conv1(x)))
        x = self.point2(torch.tanh(self.conv2(x)))
        x = self.point3(torch.tanh(self.fc(x.flatten(1))))
        return self.top(x)


def fill(model: nn.Module, generator: torch.Generator) -> None:
    """Weights of a size that keeps tanh out of saturation, from `generator` alone."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)


def batch(samples: int = 8, *shape: int, classes: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random inputs ``[samples, *shape]`` and class ids ``[samples]``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, *(shape or (WIDTHS[0],)), generator=generator)
    return x, torch.randint(0, classes, (samples,), generator=generator)


def one_hot(y: Tensor, classes: int = 3) -> Tensor:
    return torch.eye(classes)[y]


def error_of(output: Tensor, y: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy at the logits, ``[B, c]``."""
    return (torch.exp(output - output.logsumexp(1, keepdim=True)) - one_hot(y, output.shape[1])) / len(y)


def widest(_: int) -> float:
    """1 / sqrt(D) of `WIDTHS`: the scale of arXiv 2006.12878."""
    return 7**-0.5


@torch.no_grad()
def mlp_rule(
    net: Mlp, x: Tensor, y: Tensor, matrix: Tensor, signal: Callable[[Tensor], Tensor], scale: Scale = widest
) -> dict[str, Tensor]:
    """Gradients of the mean cross-entropy of an `Mlp` when ``signal(e) @ F[:, :d] * scale(d)`` reaches its points."""
    activations = [x]
    for layer in net.hidden:
        activations.append(torch.tanh(activations[-1] @ layer.weight.T + layer.bias))
    output = activations[-1] @ net.top.weight.T + net.top.bias
    error = error_of(output, y)
    gradients = {"top.weight": error.T @ activations[-1], "top.bias": error.sum(0)}
    for number, (below, h) in enumerate(pairwise(activations)):
        width = h.shape[1]
        delta = signal(error) @ matrix[:, :width] * scale(width) * (1 - h**2)
        gradients[f"hidden.{number}.weight"] = delta.T @ below
        gradients[f"hidden.{number}.bias"] = delta.sum(0)
    return gradients


def descend(net: Mlp, numbers: range) -> None:
    """A step of gradient descent on the mean cross-entropy of a batch of each number."""
    for number in numbers:
        x, y = batch(seed=number)
        net.zero_grad()
        cross_entropy(net(x), y).backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.sub_(0.3 * parameter.grad)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients that are there, by name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_gradients(model: nn.Module, expected: dict[str, Tensor], **tolerances: float) -> None:
    """Every parameter of `model` has exactly the expected gradient, no more and no fewer."""
    found = gradients_of(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda text, name=name: f"{name}: {text}", **tolerances)
