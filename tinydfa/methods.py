"""The training methods: what a hidden layer receives in place of the backpropagated gradient."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from tinydfa.errors import UnknownMethodError

Choice = TypeVar("Choice", bound="_Choice")


class _Choice(StrEnum):
    """An enum whose members are found by name, and whose typos list the names that exist."""

    @classmethod
    def parse(cls: type[Choice], value: Choice | str) -> Choice:
        """The member called `value`.

        Raises:
            UnknownMethodError: no member has that name; the message lists all of them.
        """
        try:
            return cls(value)
        except ValueError:
            names = ", ".join(member.value for member in cls)
            raise UnknownMethodError(f"unknown {cls.__name__.lower()} {value!r}. Choose one of: {names}.") from None


class Method(_Choice):
    """How the layers below the output learn.

    With e the gradient of the loss at the output ``[B, c]`` and F a fixed random matrix ``[c, D]``, a feedback
    point of width d receives:

    ==========  ===================================================  =================================
    method      signal at a hidden layer                             source
    ==========  ===================================================  =================================
    `bp`        the backpropagated gradient
    `shallow`   nothing                                              arXiv 2006.12878, the baseline
    `dfa`       ``e @ F[:, :d]``                                     Nokland 2016, arXiv 1609.01596
    `sdfa`      ``sign(e) @ F[:, :d]``                               Frenkel 2021, arXiv 1909.01311
    `tdfa`      ``ternary(e) @ F[:, :d]``                            Launay 2020, arXiv 2006.01475
    `drtp`      ``one_hot(target) @ F[:, :d]``                       Frenkel 2021, arXiv 1909.01311
    `fa`        layer by layer, a fixed random B for W               Lillicrap 2016
    `usf`       layer by layer, ``sign(W)`` of one magnitude         Liao 2016, arXiv 1510.05067
    `brsf`      ... with magnitudes redrawn every forward pass       Liao 2016
    `frsf`      ... with fixed random magnitudes                     Moskovitz 2018, arXiv 1812.06488
    ==========  ===================================================  =================================
    """

    BP = "bp"
    SHALLOW = "shallow"
    DFA = "dfa"
    SDFA = "sdfa"
    TDFA = "tdfa"
    DRTP = "drtp"
    FA = "fa"
    USF = "usf"
    BRSF = "brsf"
    FRSF = "frsf"

    cuts: bool
    """Whether feedback points stop the backpropagated gradient."""
    broadcasts: bool
    """Whether the head projects a signal straight to the feedback points."""
    layerwise: bool
    """Whether the signal walks down the layers through other matrices than the transposed weights."""
    ignores_loss_scale: bool
    """Whether a factor on the loss does not reach the hidden layers (sign and one-hot are not linear in e)."""

    def __init__(self, name: str) -> None:
        self.layerwise = name in ("fa", "usf", "brsf", "frsf")
        self.broadcasts = name in ("dfa", "sdfa", "tdfa", "drtp")
        self.cuts = self.broadcasts or name == "shallow"
        self.ignores_loss_scale = self.broadcasts and name != "dfa"
