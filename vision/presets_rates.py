"""Presets at a tenth to three times their learning rate, for tables that run them shorter than published.

A rate that was chosen for 50 to 250 epochs may not suit one, and not every method alike. Each network is tried at the
same factors by every method, for one epoch, and scored on images that are held out of the training set (table
`vision-rates`). The tables keep the rate of the preset, because they reproduce a publication.

Names: ``<preset>_lr-<rate>``, such as ``principled_fc_tanh_dfa_lr-0.0015``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinydfa import Method
from vision import presets_biotorch, presets_drtp, presets_principled
from vision.presets import Preset

FACTORS = (0.1, 0.3, 1.0, 3.0)
HOLD_OUT = 5000
BASES = presets_principled.PRESETS | presets_biotorch.PRESETS | presets_drtp.PRESETS


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A network whose rates are tried."""

    base: str  # its presets, without the method
    dataset: str
    methods: tuple[Method, ...]
    train_images: int | None = None  # of the epoch, where its own table has as few


TRIED = {  # by the row of its own table
    "FC, tanh": Tried(base="principled_fc_tanh", dataset="cifar10", methods=presets_principled.METHODS),
    "CNN, tanh": Tried(
        base="principled_cnn_tanh", dataset="cifar10", methods=presets_principled.METHODS, train_images=10_000
    ),
    "LeNet, SGD": Tried(base="biotorch_lenet", dataset="cifar10", methods=(Method.BP, Method.DFA)),
    "CONV trained": Tried(
        base="drtp_mnist_conv",
        dataset="mnist",
        methods=(Method.BP, Method.DFA, Method.SHALLOW),
    ),
}
# The factor of the lowest validation error, by row and method, of all that were run to the end; see `note_of`.
BEST: dict[str, dict[Method, float]] = {}


def tried_preset(tried: Tried, method: Method, factor: float) -> tuple[str, Preset]:
    """The name and the preset of a network by a method, at `factor` times its rate."""
    base = BASES[f"{tried.base}_{method.value}"]
    rate = float(f"{factor * base.lr:.3g}")  # 0.3, not 0.30000000000000004
    preset = replace(base, lr=rate, epochs=1, hold_out=HOLD_OUT, train_images=tried.train_images)
    return f"{tried.base}_{method.value}_lr-{rate:g}", preset


PRESETS: dict[str, Preset] = dict(
    tried_preset(tried, method, factor) for tried in TRIED.values() for method in tried.methods for factor in FACTORS
)
