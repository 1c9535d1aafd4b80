"""Rules whose signal walks down layer by layer, through another matrix B than the transposed weight.

    dL/dx = g @ B        with g = dL/dy, y = x @ W.T + b, B and W ``[out, in]``
    fa    B fixed and random                        Lillicrap 2016
    usf   B = s sign(W)                             Liao 2016, arXiv 1510.05067, uniform sign-concordant
    brsf  B = |U| sign(W), U redrawn every pass     Liao 2016, batch-wise random magnitudes
    frsf  B = |R| sign(W), R fixed and random       Moskovitz 2018, arXiv 1812.06488

The weight's own gradient keeps its rule, ``g.T @ x``. Feedback points have no part in these rules.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from tinydfa.rules.base import Rule


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
