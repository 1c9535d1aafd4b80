"""What decides a number in this folder, and the published settings by name.

The presets of each source are in a file of their own: `presets_drtp.py`, `presets_principled.py`,
`presets_biotorch.py`, `presets_iacolippo.py`. Some of them at other learning rates: `presets_rates.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.errors import UserError
from harness.precision import Precision
from harness.presets import named_preset
from tinydfa import Feedback, Method
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


def find_preset(
    *, name: str | None = None, model: str | None = None, method: str | None = None, dataset: str
) -> Preset:
    """The preset called `name`; without one, the published settings of a model on a data set.

    Args:
        name: Of a preset, or None.
        model: fc if None; a preset may not have another one.
        method: dfa if None; a preset may not have another one.
        dataset: Decides which published settings are the nearest.

    Raises:
        UserError: there is no such preset or model, or the preset has another model or method.
    """
    presets = all_presets()
    if name is None:
        method = method or Method.DFA
        nearest = presets[_default("fc" if model is None else model, method, dataset)]
        small = dataset in ("digits", "synthetic")  # fewer images than some published settings hold out
        return replace(nearest, method=method, hold_out=0 if small else nearest.hold_out)
    return named_preset(presets, name, model=model, method=method)


def all_presets() -> dict[str, Preset]:
    """Every preset by name."""
    from vision import presets_biotorch, presets_drtp, presets_iacolippo, presets_principled, presets_rates

    sources = (presets_drtp, presets_principled, presets_biotorch, presets_iacolippo, presets_rates)
    return {name: preset for source in sources for name, preset in source.PRESETS.items()}


def _default(model: str, method: str, dataset: str) -> str:
    """The preset whose settings a model on a data set takes where none is named."""
    if model not in MODELS:
        raise UserError(f"--model {model}: no such model. There are {', '.join(MODELS)}.")
    nearest = "bp" if method is Method.BP else "dfa"
    data = "cifar" if dataset == "cifar10" else "mnist"
    match model:
        case "fc":
            return f"drtp_{data}_fc1-500_{nearest}"
        case "topology":
            return f"drtp_{data}_conv_{nearest}"
        case "cnn":
            return f"principled_cnn_tanh_{nearest}"
        case _:
            return f"biotorch_{model}_{nearest}"
