"""What decides a number in this folder. The published settings by name are in `presets.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from harness.config import Method as MethodOption
from harness.errors import UserError
from harness.methods import named
from harness.options import Fixed
from harness.precision import Precision
from tinydfa import Feedback
from vision.losses import LOSSES
from vision.models.layers import INITS, WIDEST
from vision.optimizers import OPTIMIZERS

MODELS = ("fc", "topology", "cnn", "lenet", "lenet-mnist", "resnet20", "resnet56")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """All that decides a number. Its fields are options; the data set, paths and devices are those of the command."""

    method: MethodOption
    model: str = "fc"
    """fc, topology, cnn, lenet, lenet-mnist, resnet20 or resnet56."""
    hidden: tuple[int, ...] = (500,)
    """fc: widths of the hidden layers, such as 1000 1000."""
    topology: str = ""
    """The layers of model topology, such as CONV_32_5_1_2_FC_1000_FC_10; chooses that model."""
    act: str = "tanh"
    """Activation of the hidden layers: tanh, relu, sigmoid, leaky-relu-0.1 ..."""
    output_act: str = "none"
    """Activation of the output, before the loss; none: logits."""
    batch_norm: bool = False
    """Batch normalisation after the hidden activations."""
    input_dropout: float = 0.0
    """Dropout of the input."""
    conv_dropout: float = 0.0
    """Dropout before the activations of convolutions (arXiv 1906.04554)."""
    inner_dropout: float = 0.0
    """Dropout before the activations of fully connected layers (arXiv 1906.04554)."""
    dropout: float = 0.0
    """Dropout of the outputs of fully connected layers, above their feedback points (Frenkel et al. 2021)."""
    freeze_convs: bool = False
    """Convolutions keep their random weights."""
    init: str = "default"
    """Initial weights: default (PyTorch's), he, xavier, normal or zero."""
    loss: str = "bce"
    """ce, bce, bce-sum or mse."""
    reduction: Literal["mean", "sum"] = "mean"
    """The gradient is that of the mean loss over a batch, or of the sum."""
    feedback: Fixed[Feedback] = field(default_factory=Feedback)  # its seed is the run's
    optimizer: str = "adam"
    """sgd, momentum, nag, adam or rmsprop."""
    lr: float = 1e-3
    """Learning rate."""
    weight_decay: float = 0.0
    """Weight decay of the optimiser."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the learning rate is divided by 10."""
    batch: int = 100
    """Images a step, over all processes."""
    drop_last: bool = False
    """Leave out a last batch that is smaller."""
    epochs: int = 100
    """Passes over the training data."""
    tolerance: float = 0.0
    """Stop when the training error of an epoch changes by no more than this share; 0: never."""
    normalise: bool = False
    """Shift and scale pixels to mean 0 and deviation 1 per channel."""
    pad_to: int | None = None
    """Height and width that images are padded to."""
    hold_out: int = 0
    """Training images that choose the epoch which is reported; 0: the last epoch is."""
    flip: bool = False
    """Mirror training images at random."""
    train_images: int | None = None
    """Train on that many images alone, drawn by the seed."""
    precision: Precision = "fp32"
    """bf16: products and convolutions of numbers rounded to bfloat16."""

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
        object.__setattr__(self, "method", named(self.method))


# Options that do something for some models alone.
NEEDS = {
    "hidden": ("model", ("fc",)),
    "topology": ("model", ("topology",)),
    "act": ("model", ("fc", "topology", "cnn", "lenet", "lenet-mnist")),
    "output_act": ("model", ("fc", "topology")),
    "batch_norm": ("model", ("fc", "cnn")),
    "input_dropout": ("model", ("fc", "cnn")),
    "conv_dropout": ("model", ("cnn",)),
    "inner_dropout": ("model", ("fc", "cnn")),
    "dropout": ("model", ("fc", "topology")),
}


def _check_widths(hidden: tuple[int, ...]) -> None:
    """Raise `UserError` for impossible widths."""
    given = " ".join(["--hidden", *map(str, hidden)])
    if not hidden:
        raise UserError(f"{given} names no width, and fc needs a hidden layer. Give one or more, such as --hidden 500.")
    if not all(1 <= width <= WIDEST for width in hidden):
        reason = "of 784 inputs that many units take 31 GB, before their gradients"
        raise UserError(f"{given}: a width lies in 1 to {WIDEST:,} ({reason}). Choose others.")
