"""Presets at a tenth to three times their learning rate, for tables that run them shorter than published.

A rate that was chosen for 50 to 250 epochs may not suit one, and not every method alike. Each network is tried at the
same factors by every method, for one epoch, and scored on images that are held out of the training set (table
`vision-rates`). The tables keep the rate of the preset, because they reproduce a publication.

Names: ``<preset>_lr-<rate>``, such as ``principled_fc_tanh_dfa_lr-0.0015``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinydfa import Method
from vision.biotorch import presets as biotorch
from vision.drtp import presets as drtp
from vision.preset import Preset
from vision.principled import presets as principled
from vision.rates.notes import FACTORS

HOLD_OUT = 5000
BASES = principled.PRESETS | biotorch.PRESETS | drtp.PRESETS


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A network whose rates are tried."""

    base: str  # its presets, without the method
    dataset: str
    methods: tuple[Method, ...]
    train_images: int | None = None  # of the epoch; all if None


TRIED = {  # by the row of its own table
    "FC, tanh": Tried(base="principled_fc_tanh", dataset="cifar10", methods=principled.METHODS),
    "CNN, tanh": Tried(base="principled_cnn_tanh", dataset="cifar10", methods=principled.METHODS, train_images=10_000),
    "LeNet, SGD": Tried(base="biotorch_lenet", dataset="cifar10", methods=(Method.BP, Method.DFA)),
    "CONV trained": Tried(
        base="drtp_mnist_conv",
        dataset="mnist",
        methods=(Method.BP, Method.DFA, Method.SHALLOW),
    ),
}


def tried_preset(tried: Tried, method: Method, factor: float) -> tuple[str, Preset]:
    """The name and the preset of a network by a method, at `factor` times its rate."""
    base = BASES[f"{tried.base}_{method.value}"]
    rate = float(f"{factor * base.lr:.3g}")  # 0.3, not 0.30000000000000004
    preset = replace(base, lr=rate, epochs=1, hold_out=HOLD_OUT, train_images=tried.train_images)
    return f"{tried.base}_{method.value}_lr-{rate:g}", preset


PRESETS: dict[str, Preset] = dict(
    tried_preset(tried, method, factor) for tried in TRIED.values() for method in tried.methods for factor in FACTORS
)
