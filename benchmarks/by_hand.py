"""DFA on a perceptron written by hand, as short as can be: the floor for what a DFA step costs beside its products.

It does what `tinydfa.attach` does for this one model (a hook cuts every hidden activation, one autograd node projects
the error, which is summed to see that it is finite), and nothing else: shapes, types and points are known beforehand.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tinydfa import Feedback

NAME = "dfa, by hand"


class Project(torch.autograd.Function):
    """The outputs, unchanged; backward, every point receives the error times F."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, feedback: Tensor, scale: float, *points: Tensor) -> Tensor:
        ctx.feedback, ctx.scale, ctx.points = feedback, scale, len(points)
        return output

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        total = error.sum().item()
        if total - total != 0.0:
            raise ValueError("the error is not finite")
        signal = (error * ctx.scale) @ ctx.feedback
        return (error, None, None, *[signal] * ctx.points)


class ByHand(nn.Module):
    """A perceptron whose hidden layers are all of one width, trained by DFA."""

    def __init__(self, net: nn.Sequential, points: tuple[str, ...], outputs: int, width: int) -> None:
        super().__init__()
        self.net = net
        self.feedback, self.scale = Feedback().draw(outputs, width), width**-0.5
        self.values: list[Tensor] = []
        for name in points:
            net.get_submodule(name).register_forward_hook(self.cut)

    def cut(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        self.values.append(output)
        return output.detach()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(x)
        values, self.values = self.values, []
        joined: Tensor = Project.apply(output, self.feedback, self.scale, *values)
        return joined
