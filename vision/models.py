"""Fully connected networks, and the networks that DRTP's topology strings describe.

A `DFALayer` marks each hidden layer where the published codes give it its signal. Until something is attached to a
model it is the plain PyTorch model, trained by backpropagation; no training method appears here. Networks of a fixed
shape (LeNet, ResNet, the CNN of arXiv 1906.04554) are in `convnets.py`.

Letters: B samples, f input features, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from harness.errors import UserError
from tinydfa import DFALayer
from vision.layers import activation
from vision.topology import FC, Conv, parse_topology


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
        act: Activation of the hidden layers, see `vision.layers.activation`.
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


class ConvBlock(nn.Module):
    """Convolution, activation, feedback point, 2 x 2 max-pool, as in the DRTP release."""

    def __init__(self, channels: int, conv: Conv, act: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, conv.channels, conv.kernel, conv.stride, conv.padding)
        self.act = activation(act)
        self.point = DFALayer()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` to ``[B, channels, H/2, W/2]`` (for a convolution that keeps the size)."""
        h: Tensor = self.pool(self.point(self.act(self.conv(x))))
        return h


class TopologyNet(nn.Module):
    """The network of a DRTP topology string: convolutional blocks, then a `FullyConnected`.

    Args:
        topology: Such as ``CONV_32_5_1_2_FC_1000_FC_10``.
        shape: Of one sample: ``(channels, height, width)``, or ``(features,)`` where there are no convolutions.
        act: Activation of all hidden layers.
        output_act: Activation of the output; "none" gives logits.
        dropout: Dropout before every fully connected layer, the first included.

    Raises:
        UserError: the string is not a topology, or does not fit images of that shape.
    """

    def __init__(
        self, topology: str, shape: tuple[int, ...], act: str = "tanh", output_act: str = "none", dropout: float = 0.0
    ) -> None:
        super().__init__()
        layers = parse_topology(topology)
        convs = [layer for layer in layers if isinstance(layer, Conv)]
        blocks, features = [], _features(topology, convs, shape)
        channels = shape[0]
        for conv in convs:
            blocks.append(ConvBlock(channels, conv, act))
            channels = conv.channels
        self.convs = nn.Sequential(*blocks)
        widths = [features, *(layer.width for layer in layers if isinstance(layer, FC))]
        self.fc = FullyConnected(widths, act, output_act, input_dropout=dropout, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, *shape]`` to ``[B, K]``."""
        y: Tensor = self.fc(self.convs(x))
        return y


def _features(topology: str, convs: Sequence[Conv], shape: tuple[int, ...]) -> int:
    """How many numbers a sample has after the convolutional blocks."""
    if not convs:
        features = 1
        for size in shape:
            features *= size
        return features
    if len(shape) != 3:
        raise UserError(f"--topology {topology}: convolutions need images, and a sample here has shape {shape}.")
    _, *sizes = shape
    for number, conv in enumerate(convs, start=1):
        sizes = [((size - conv.kernel + 2 * conv.padding) // conv.stride + 1) // 2 for size in sizes]
        if min(sizes) < 1:
            raise UserError(
                f"--topology {topology}: nothing is left of an image of {shape[1]} x {shape[2]} after convolution "
                f"{number} and its pool. Use fewer or smaller kernels, or more padding."
            )
    return convs[-1].channels * sizes[0] * sizes[1]
