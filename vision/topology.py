"""The topology strings of the DRTP release, such as ``CONV_32_5_1_2_FC_1000_FC_10``.

``CONV_<channels>_<kernel>_<stride>_<padding>`` is a convolution, its activation and a 2 x 2 max-pool; ``FC_<width>`` a
fully connected layer. Convolutions come first, and the last layer is an ``FC``. Source: Frenkel et al. 2021, `main.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UserError
from vision.layers import WIDEST

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


def _number(text: str, words: list[str], places: list[int], index: int, what: str, least: int) -> int:
    """The whole number at `index`, at least `least`."""
    if index >= len(words) or not words[index]:
        raise _mistake(text, min(places[index], len(text)), f"the {what} is missing")
    word = words[index]
    if word.isascii() and word.isdigit() and int(word) > WIDEST:
        raise _mistake(
            text, places[index], f"the {what} is '{word}', and memory for more than {WIDEST:,} cannot be had"
        )
    if not word.isascii() or not word.isdigit() or int(word) < least:
        raise _mistake(text, places[index], f"the {what} is '{word}', not a whole number of at least {least}")
    return int(word)


def _mistake(text: str, position: int, problem: str) -> UserError:
    marked = f"{text[:position]}>>>{text[position:]}"
    return UserError(f"--topology {text}: at character {position + 1}, {problem} ({marked}). {FORM}.")
