"""The topology strings of the DRTP release, such as ``CONV_32_5_1_2_FC_1000_FC_10``, and the networks they describe.

``CONV_<channels>_<kernel>_<stride>_<padding>`` is a convolution, its activation and a 2 x 2 max-pool; ``FC_<width>`` a
fully connected layer. Convolutions come first, and the last layer is an ``FC``. Source: Frenkel et al. 2021, `main.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from harness.errors import UserError
from tinydfa import DFALayer
from vision.models.fully_connected import FullyConnected
from vision.models.layers import WIDEST, activation

FORM = "Write CONV_<channels>_<kernel>_<stride>_<padding> and FC_<width>, as in CONV_32_5_1_2_FC_1000_FC_10"
NUMBERS = {"CONV": ("channels", "kernel", "stride", "padding"), "FC": ("width",)}


@dataclass(frozen=True)
class Conv:
    """A convolution, activation and 2 x 2 max-pool."""

    channels: int
    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class FC:
    """A fully connected layer."""

    width: int


def parse_topology(text: str) -> tuple[Conv | FC, ...]:
    """The layers that a topology string describes, first to last.

    Raises:
        UserError: it is not one; the message marks the place.

    Example:
        >>> parse_topology("CONV_32_5_1_2_FC_10")
        (Conv(channels=32, kernel=5, stride=1, padding=2), FC(width=10))
    """
    words = text.split("_")
    places = [sum(len(word) + 1 for word in words[:index]) for index in range(len(words) + 1)]
    layers: list[Conv | FC] = []
    index = 0
    while index < len(words):
        kind = words[index]
        if kind not in NUMBERS:
            found = f"'{kind}' is no layer" if kind else "a layer is missing"
            raise _mistake(text, places[index], f"{found}; there are CONV and FC")
        numbers = []
        for name in NUMBERS[kind]:
            index += 1
            numbers.append(_number(text, words, places, index, f"{name} of {kind}", 0 if name == "padding" else 1))
        layer = Conv(*numbers) if kind == "CONV" else FC(*numbers)
        if isinstance(layer, Conv) and layers and isinstance(layers[-1], FC):
            raise _mistake(text, places[index - 4], "a CONV after an FC; convolutions come first")
        layers.append(layer)
        index += 1
    if not isinstance(layers[-1], FC):
        raise _mistake(text, len(text), "the last layer must be an FC as wide as there are classes")
    return tuple(layers)


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


def _number(text: str, words: list[str], places: list[int], index: int, what: str, least: int) -> int:
    """The whole number at `index`, at least `least`."""
    if index >= len(words) or not words[index]:
        raise _mistake(text, min(places[index], len(text)), f"the {what} is missing")
    word = words[index]
    if word.isascii() and word.isdigit() and int(word) > WIDEST:
        raise _mistake(text, places[index], f"the {what} is '{word}', and more than {WIDEST:,} would not fit in memory")
    if not word.isascii() or not word.isdigit() or int(word) < least:
        raise _mistake(text, places[index], f"the {what} is '{word}', not a whole number of at least {least}")
    return int(word)


def _mistake(text: str, position: int, problem: str) -> UserError:
    marked = f"{text[:position]}>>>{text[position:]}"
    return UserError(f"--topology {text}: at character {position + 1}, {problem} ({marked}). {FORM}.")
