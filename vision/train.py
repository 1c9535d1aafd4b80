"""Train one small network on images by one method.

    python -m vision.train --model fc --dataset mnist --method drtp
    python -m vision.train --preset drtp_cifar_conv_dfa --dataset cifar10

Reported is the test error after the last epoch, as in the published codes; with images held out (`hold_out`), at the
first epoch of the best error on those.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import config, processes
from harness.device import pick_device
from harness.errors import UserError
from harness.files import name_of
from harness.methods import rule_of, slug
from harness.precision import Precision, check_precision, products
from harness.run import NullRun, Run
from harness.run.launch import check_launch
from harness.run.memory import MemoryConfig
from harness.seeds import seed_everything
from tinydfa import attach
from vision.data.sets import load_data
from vision.data.splits import Data
from vision.losses import LOSSES
from vision.models.build import build_model
from vision.preset import Preset
from vision.presets import find_preset
from vision.training import batch_alignment, check_batches, check_processes, feedback_of, fit

WITHOUT = {"dropout": ("cnn", "lenet", "lenet-mnist", "resnet20", "resnet56"), "act": ("resnet20", "resnet56")}
LARGEST = 1024  # height and width of one's own images


@dataclass(frozen=True, kw_only=True)
class Config(config.RunConfig, MemoryConfig):
    """Train a small network on images. Settings that are left out come from the preset."""

    dataset: str = "digits"
    """digits (or synthetic, which is the same), which needs no files, mnist, fashion-mnist, cifar10, drtp-regression or
    drtp-classification."""
    image_dir: Path | None = None
    """A folder of your own images, in place of --dataset: a folder for every class."""
    image_size: int | None = None
    """Height and width that your own images are cropped and scaled to; if left out, all must have one size."""
    model: str | None = None
    """fc, topology, cnn, lenet, lenet-mnist, resnet20 or resnet56; fc if left out."""
    preset: str | None = None
    """A named preset, such as drtp_mnist_fc1-500_dfa, in place of model and method."""
    topology: str | None = None
    """A topology string, such as CONV_32_5_1_2_FC_1000_FC_10, in place of --model."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers of fc, such as 1000 1000."""
    act: str | None = None
    """Activation of the hidden layers: tanh, relu, sigmoid, leaky-relu-0.1 ..."""
    dropout: float | None = None
    """Dropout of the outputs of fully connected layers."""
    freeze_convs: bool | None = None
    """Convolutions keep their random weights."""
    init: str | None = None
    """default, he, xavier, normal or zero."""
    loss: str | None = None
    """ce, bce, bce-sum or mse."""
    optimizer: str | None = None
    """sgd, momentum, nag, adam or rmsprop."""
    lr: float | None = None
    """Learning rate."""
    batch: int | None = None
    """Images a step."""
    hold_out: int | None = None
    """Training images that choose the epoch which is reported; 0: the last epoch is."""
    train_images: int | None = None
    """Train on that many images alone, drawn by the seed."""
    precision: Precision | None = None
    """bf16: products and convolutions of numbers rounded to bfloat16."""
    alignment: bool = False
    """Measure the alignment with backpropagation after every epoch, on a batch of test images."""
    keep_weights: int = 0
    """Write the first layer's weights of that many units into the result, for pictures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_weights < 0:
            raise UserError(f"--keep-weights {self.keep_weights}: give 0 or more.")
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST:
            raise UserError(f"--image-size {self.image_size}: give 1 to {LARGEST}.")
        if self.image_dir is None:
            if self.image_size is not None:
                raise UserError("--image-size is about your own images. Give them with --image-dir, or leave it out.")
        elif self.dataset != "digits" or self.data_dir is not None:
            option = "--data-dir" if self.dataset == "digits" else "--dataset"
            raise UserError(f"{option} and --image-dir name two sets of images. Leave one of them out.")

    @property
    def data_name(self) -> str:
        """The data set, or the folder of images."""
        return self.dataset if self.image_dir is None else name_of(self.image_dir, "images")

    def resolve(self) -> Preset:
        """The preset that these arguments mean."""
        model = "topology" if self.topology is not None and self.model is None else self.model
        preset = find_preset(
            name=self.preset, model=model, method=self.method, dataset=self.dataset
        )  # own images: as digits
        self.keeps(preset.method)  # said now if it cannot be
        shared = {field.name for field in fields(Config)} & {field.name for field in fields(Preset)}
        given = {name: getattr(self, name) for name in shared - {"model", "method"}}
        for option, owner in {"topology": "topology", "hidden": "fc"}.items():
            if given[option] is not None and preset.model != owner:
                meant = f"is about --model {owner}, and this run trains {preset.model}"
                raise UserError(f"--{option} {meant}. Leave one of them out.")
        for option, models in WITHOUT.items():
            if given[option] is not None and preset.model in models:
                raise UserError(f"--{option} has no effect on --model {preset.model}. Leave one of them out.")
        return replace(preset, **{name: value for name, value in given.items() if value is not None})


def train(
    config: Config, run: Run | None = None, data: Data | None = None, preset: Preset | None = None
) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        data: The images on the device, if they were loaded already.
        preset: What is trained; None: what the arguments of `config` mean.

    Returns:
        The result (see `harness.tables.results.make_result`), with curves per epoch.

    Raises:
        UserError: an impossible configuration, missing or damaged data, or a loss that is not finite.
    """
    preset = preset or config.resolve()
    data = data or load_preset_data(preset, config, pick_device(config.device))
    check(preset, data)
    run = run or NullRun("vision", resolved(config, preset))
    seed_everything(config.seed)
    device = data.train.x.device
    model = build_model(preset, data.shape, data.outputs).to(device)
    keeps = config.keeps(preset.method)
    attachment = attach(model, preset.method, feedback=feedback_of(preset, config.seed), memory=keeps)
    batch = data.test.drawn(preset.batch, config.seed)

    def alignment() -> dict[str, float]:
        with products(preset.precision):
            return batch_alignment(model, attachment, batch.x, batch.y, LOSSES[preset.loss])

    measure = alignment if config.alignment else None
    history = fit(run, model, attachment, data, preset, measure=measure, checkpoint_every=config.checkpoint_every)
    curves = history.curves() | first_weights(model, config.keep_weights)
    return run.finish(model=preset.model, metrics=history.metrics(), curves=curves, device=device)


def first_weights(model: nn.Module, units: int) -> dict[str, Any]:
    """Weights of the first `units` units of the lowest layer, to three digits; nothing for 0."""
    if units == 0:
        return {}
    weight = next(p for p in model.parameters() if p.dim() > 1).detach()[:units].flatten(1)
    return {"first_weights": [[round(value, 3) for value in row] for row in weight.tolist()]}


def check(preset: Preset, data: Data) -> None:
    """Raise `UserError` where the preset asks for something that the data, or several processes, do not have."""
    check_batches(preset, data)
    with torch.device("meta"):
        model = build_model(preset, data.shape, data.outputs)
    check_processes(preset, model, processes.current().size)
    if preset.freeze_convs and not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        raise UserError(
            f"--freeze-convs: this network ({preset.model}) has no convolutions. Leave it out, or use another --model."
        )
    if data.classes is not None:
        return
    if rule_of(preset.method).needs_target:
        raise UserError(
            f"--method {preset.method} projects one-hot targets, and {data.name} is a regression, which has none. Use "
            "another method, or a data set with classes."
        )
    if preset.loss != "mse":
        raise UserError(f"--loss {preset.loss} needs classes, and {data.name} is a regression. Use --loss mse.")


def load_preset_data(preset: Preset, config: Config, device: torch.device) -> Data:
    """The images of `config`, prepared as the preset says, on `device`."""
    data = processes.current().once(partial(read_preset_data, preset, config)).to(device)
    if preset.train_images is None:
        return data
    if config.train_images is not None and config.train_images > len(data.train):
        raise UserError(f"--train-images {config.train_images}: there are {len(data.train)} to train on. Give fewer.")
    return replace(data, train=data.train.drawn(preset.train_images, config.seed))


def read_preset_data(preset: Preset, config: Config) -> Data:
    """The images of `config`, as they are read."""
    return load_data(
        config.dataset,
        config.data_dir,
        normalise=preset.normalise,
        pad_to=preset.pad_to,
        hold_out=preset.hold_out,
        seed=config.seed,
        image_dir=config.image_dir,
        image_size=config.image_size,
    )


def resolved(config: Config, preset: Preset) -> dict[str, Any]:
    """All that decided the run and its curves: the preset, the data set, the seed, whether alignment is measured."""
    measured = config.alignment or None  # None, as in the folders of runs from before it was written down
    about = {"dataset": config.data_name, "image_size": config.image_size, "seed": config.seed}
    return vars(preset) | about | {"alignment": measured}


def main(config: Config) -> None:
    """Run the command."""
    preset = config.resolve()
    check_launch("vision", preset.precision)
    device = processes.join(config.device)
    name = f"{config.preset or f'{preset.model}_{slug(preset.method)}'}-{config.data_name}-{config.seed}"
    settings = resolved(config, preset) | {"device": config.device, "data_dir": config.data_dir}
    data = load_preset_data(preset, config, device)  # before the folder: a missing file should not leave one behind
    check(preset, data)
    check_precision(preset.precision, device)
    with Run("vision", name, settings, config.out, config.resume) as run:
        train(config, run, data, preset)
    processes.leave()


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
