"""What decides a number in this folder. The published settings by name are in `presets.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from harness.errors import UserError
from harness.precision import Precision
from tinydfa import Feedback
from vision.losses import LOSSES
from vision.models.layers import INITS, WIDEST
from vision.optimizers import OPTIMIZERS

MODELS = ("fc", "topology", "cnn", "lenet", "lenet-mnist", "resnet20", "resnet56")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that decides a number; the data set, paths and devices belong to the command line."""

    method: str
    model: str = "fc"
    hidden: tuple[int, ...] = (500,)  # fc: widths of the hidden layers
    topology: str = ""  # topology: the string of the DRTP release
    act: str = "tanh"  # of the hidden layers
    output_act: str = "none"  # none: logits
    batch_norm: bool = False
    input_dropout: float = 0.0
    conv_dropout: float = 0.0  # cnn: before the activations of convolutions
    inner_dropout: float = 0.0  # before the activations of fully connected layers (arXiv 1906.04554)
    dropout: float = 0.0  # of the outputs of fully connected layers, above their feedback points (Frenkel et al. 2021)
    freeze_convs: bool = False  # convolutions keep their random weights
    init: str = "default"
    loss: str = "bce"
    reduction: Literal["mean", "sum"] = "mean"  # over the samples of a batch
    feedback: Feedback = field(default_factory=Feedback)  # its seed is the run's
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    milestones: tuple[int, ...] = ()  # epochs after which the learning rate is divided by 10
    batch: int = 100
    drop_last: bool = False
    epochs: int = 100
    tolerance: float = 0.0  # stop when the training error of an epoch changes by no more than this share; 0: never
    normalise: bool = False  # pixels to zero mean and unit deviation per channel
    pad_to: int | None = None
    hold_out: int = 0  # training images that choose the epoch which is reported; 0: the last one is
    flip: bool = False  # mirror training images at random
    train_images: int | None = None  # train on that many alone; None: on all
    precision: Precision = "fp32"  # bf16: products and convolutions of numbers rounded to bfloat16

    def __post_init__(self) -> None:
        for name in ("input_dropout", "conv_dropout", "inner_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; a dropout rate lies in [0, 1).")
        for name in ("lr", "batch", "epochs", "train_images"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}; it must be above 0, and finite.")
        if self.model == "fc":
            _check_widths(self.hidden)
        for what, known in (
            ("model", MODELS),
            ("optimizer", tuple(OPTIMIZERS)),
            ("loss", tuple(LOSSES)),
            ("init", INITS),
        ):
            if getattr(self, what) not in known:
                raise UserError(f"no {what} is called '{getattr(self, what)}'. There are {', '.join(known)}.")


def _check_widths(hidden: tuple[int, ...]) -> None:
    """Raise `UserError` for widths that no network has."""
    given = " ".join(["--hidden", *map(str, hidden)])
    if not hidden:
        raise UserError(f"{given} names no width, and fc needs a hidden layer. Give one or more, such as --hidden 500.")
    if not all(1 <= width <= WIDEST for width in hidden):
        reason = "of 784 inputs that many units take 31 GB, before their gradients"
        raise UserError(f"{given}: a width lies in 1 to {WIDEST:,} ({reason}). Choose others.")
