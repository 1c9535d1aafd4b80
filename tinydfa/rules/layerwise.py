"""Rules whose signal walks down layer by layer, through another matrix B than the transposed weight.

    dL/dx = g @ B        with g = dL/dy, y = x @ W.T + b, B and W ``[out, in]``
    fa    B fixed and random                        Lillicrap 2016
    usf   B = s sign(W)                             Liao 2016, arXiv 1510.05067, uniform sign-concordant
    brsf  B = |U| sign(W), U redrawn every pass     Liao 2016, batch-wise random magnitudes
    frsf  B = |R| sign(W), R fixed and random       Moskovitz 2018, arXiv 1812.06488
    kp    B = W + (1 - decay)^t (R - W0)            Akrout 2019, arXiv 1904.05391, Kolen-Pollack

Under kp B takes every step that W takes, and both decay; so after t of them what is left of their first difference,
R - W0, is (1 - decay)^t of it. That closed form is computed, whatever the optimiser is.

The weight's own gradient keeps its rule, ``g.T @ x``. Feedback points have no part in these rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from tinydfa.rules.base import Rule
from tinydfa.rules.options import share


class Magnitudes(StrEnum):
    """How large the entries of B are."""

    ONE = "one"  # all of one size
    FIXED = "fixed"  # random, drawn once
    FRESH = "fresh"  # random, drawn in every forward pass


class Layerwise(Rule):
    """B of the layers: its magnitudes, and whether its signs are those of the weight."""

    layerwise = True
    magnitudes: ClassVar[Magnitudes] = Magnitudes.FIXED
    follows_signs: ClassVar[bool] = True
    approach: ClassVar[float | None] = None
    """By how much of what is left B comes nearer to W in each training pass; None: it does not."""


class FA(Layerwise):
    """Feedback alignment: a fixed random matrix in place of each weight."""

    name = "fa"
    label = "FA"
    colour = "#0072B2"
    source = "Lillicrap et al. 2016"
    follows_signs = False


class USF(Layerwise):
    """The signs of the weight, all of one magnitude."""

    name = "usf"
    label = "uSF"
    colour = "#8C6BB1"
    source = "Liao et al. 2016, arXiv 1510.05067"
    magnitudes = Magnitudes.ONE


class BRSF(Layerwise):
    """The signs of the weight, with magnitudes redrawn in every forward pass."""

    name = "brsf"
    label = "brSF"
    colour = "#A6761D"
    source = "Liao et al. 2016, arXiv 1510.05067"
    magnitudes = Magnitudes.FRESH


class FRSF(Layerwise):
    """The signs of the weight, with fixed random magnitudes."""

    name = "frsf"
    label = "frSF"
    colour = "#666633"
    source = "Moskovitz et al. 2018, arXiv 1812.06488"
    magnitudes = Magnitudes.FIXED


@dataclass(frozen=True, repr=False)
class KP(Layerwise):
    """Kolen-Pollack: B starts at random, takes the steps of W, and comes nearer to it as both decay.

    Args:
        decay: Of B and W in a training pass. The published rule decays W alike: give the optimiser a decoupled weight
            decay of `decay` a step (AdamW: ``weight_decay=decay / lr``), or leave W alone, as most do.
    """

    name = "kp"
    label = "KP"
    colour = "#6699CC"
    source = "Akrout et al. 2019, arXiv 1904.05391; Kolen and Pollack 1994"
    follows_signs = False

    decay: float = 0.01

    def __post_init__(self) -> None:
        share(self, "decay", self.decay)

    @property
    def approach(self) -> float:  # type: ignore[override]
        return self.decay
