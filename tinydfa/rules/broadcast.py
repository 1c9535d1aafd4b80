"""Rules without a backward path through the layers: backpropagation's baseline aside, a random projection of the error.

With e the gradient of the loss at the output ``[B, c]`` and F a fixed random matrix ``[c, D]``, a point of width d
receives ``s @ F[:, :d]``, scaled as `tinydfa.Feedback` says, where s is

    dfa      e                              Nokland 2016, arXiv 1609.01596
    sdfa     sign(e)                        Frenkel 2021, arXiv 1909.01311
    tdfa     ternary(e)                     Launay 2020, arXiv 2006.01475
    drtp     one_hot(target)                Frenkel 2021, arXiv 1909.01311
    shallow  0: only the top layer learns   the baseline of arXiv 2006.12878
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tinydfa.rules.base import Broadcast, Rule
from tinydfa.signals import one_hot_rows, ternary


class Backprop(Rule):
    """Backpropagation: the points let the gradient through."""

    name = "bp"
    label = "BP"
    colour = "#444444"
    explained = "The error e walks back through every layer, each waiting for the one above and using its weights."


class Shallow(Rule):
    """Only what lies above the last point learns; the rest keeps its random weights."""

    name = "shallow"
    label = "Shallow"
    colour = "#56B4E9"
    explained = "Only the last layer learns; the others keep their random weights. A method must beat this."
    source = "arXiv 2006.12878, the baseline"
    cuts = True
    reaches_all = False


class DFA(Broadcast):
    """Direct feedback alignment: ``e @ F``."""

    name = "dfa"
    label = "DFA"
    colour = "#E69F00"
    explained = (
        "Every hidden layer gets the error at once, through one fixed random matrix F. No layer waits for another."
    )
    source = "Nokland 2016, arXiv 1609.01596"


class SignDFA(Broadcast):
    """The signs of the error alone: ``sign(e) @ F``."""

    name = "sdfa"
    label = "sDFA"
    colour = "#D55E00"
    source = "Frenkel et al. 2021, arXiv 1909.01311"

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        return error.sign()


@dataclass(frozen=True, repr=False)
class TernaryDFA(Broadcast):
    """The signs of the large errors, 0 for the small ones: ``ternary(e) @ F``, which an optical device can project.

    Args:
        threshold: Errors up to this size count as 0. None: the mean size over the batch.
    """

    name = "tdfa"
    label = "tDFA"
    colour = "#CC79A7"
    source = "Launay et al. 2020, arXiv 2006.01475"

    threshold: float | None = None

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        return ternary(error, self.threshold)


class DRTP(Broadcast):
    """Direct random target projection: ``one_hot(target) @ F``; the layers need not wait for the output.

    Targets are class ids ``[B]`` (negative: no label, a row of zeros) or rows ``[B, c]``.
    """

    name = "drtp"
    label = "DRTP"
    colour = "#009E73"
    source = "Frenkel et al. 2021, arXiv 1909.01311"
    needs_target = True
    needs_error = False

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        assert target is not None
        return one_hot_rows(target, error)
