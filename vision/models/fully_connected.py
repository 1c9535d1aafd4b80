"""Fully connected networks.

A `DFALayer` marks each hidden layer where the published codes give it its signal. Until something is attached to a
model it is the plain PyTorch model, trained by backpropagation; no training method appears here.

Letters: B samples, f input features, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from tinydfa import DFALayer
from vision.models.layers import activation


class Hidden(nn.Module):
    """A hidden layer: linear, dropout, activation, batch norm, feedback point, dropout; what is off is left out."""

    def __init__(
        self, before: int, width: int, act: str, batch_norm: bool, inner_dropout: float, dropout: float
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.Linear(before, width)]
        if inner_dropout:
            steps.append(nn.Dropout(inner_dropout))
        steps.append(activation(act))
        if batch_norm:
            steps.append(nn.BatchNorm1d(width))
        self.layer = nn.Sequential(*steps)
        self.point = DFALayer()
        self.dropout = nn.Dropout(dropout) if dropout else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, before]`` to ``[B, width]``."""
        h: Tensor = self.point(self.layer(x))
        return h if self.dropout is None else self.dropout(h)


class FullyConnected(nn.Module):
    """Linear layers with one activation, a feedback point after every hidden layer.

    Args:
        widths: Of the input, the hidden layers and the output: ``(784, 500, 10)``.
        act: Activation of the hidden layers, see `vision.models.layers.activation`.
        output_act: Activation of the output; "none" gives logits.
        batch_norm: After every hidden activation.
        input_dropout: Dropout of the input.
        inner_dropout: Dropout between a hidden layer's linear part and its activation (arXiv 1906.04554).
        dropout: Dropout of a hidden layer's output, above its feedback point (Frenkel et al. 2021).
    """

    def __init__(
        self,
        widths: Sequence[int],
        act: str = "tanh",
        output_act: str = "none",
        *,
        batch_norm: bool = False,
        input_dropout: float = 0.0,
        inner_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_dropout = nn.Dropout(input_dropout) if input_dropout else None
        pairs = list(pairwise(widths))
        self.hidden = nn.ModuleList(Hidden(*pair, act, batch_norm, inner_dropout, dropout) for pair in pairs[:-1])
        self.top = nn.Linear(*pairs[-1])
        self.output_act = activation(output_act) if output_act != "none" else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, f]`` or ``[B, C, H, W]`` to ``[B, K]``."""
        h = x.flatten(1)
        if self.input_dropout is not None:
            h = self.input_dropout(h)
        for layer in self.hidden:
            h = layer(h)
        y: Tensor = self.top(h)
        return y if self.output_act is None else self.output_act(y)
