"""Train one small network on images by one method.

    python -m vision.train --model fc --dataset mnist --method drtp
    python -m vision.train --preset drtp_cifar_conv_dfa --dataset cifar10

Reported is the test error after the last epoch, as in the published codes; with images held out (`hold_out`), at the
first epoch of the best error on those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from harness import processes
from harness.config import BaseConfig
from harness.device import pick_device
from harness.errors import UserError
from harness.files import name_of
from harness.methods import rule_of, slug
from harness.options import Flat, PresetName, refuse_without_effect
from harness.precision import check_precision, products
from harness.run import NullRun, Run
from harness.run.memory import MemoryConfig
from harness.seeds import seed_everything
from tinydfa import attach
from vision.data.sets import load_data
from vision.data.splits import Data
from vision.losses import LOSSES
from vision.models.build import build_model
from vision.preset import NEEDS, Preset
from vision.presets import find_preset
from vision.training import batch_alignment, check_batches, check_processes, feedback_of, fit

LARGEST = 1024  # height and width of one's own images


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig, MemoryConfig):
    """Train a small network on images."""

    renamed: ClassVar = {"alignment": "--alignment-every 1"}

    preset: Flat[Preset]
    named: PresetName = None
    dataset: str = "synthetic"
    """synthetic (also called digits), which needs no files, mnist, fashion-mnist, cifar10, drtp-regression or
    drtp-classification."""
    image_dir: Path | None = None
    """A folder of your own images, in place of --dataset: a folder for every class."""
    image_size: int | None = None
    """Height and width that your own images are cropped and scaled to; if left out, all must have one size."""
    alignment_every: int | None = None
    """Epochs between measurements of the alignment with backpropagation, on some test images; none if left out."""
    keep_weights: int = 0
    """Write the first layer's weights of that many units into the result, for pictures."""

    @staticmethod
    def choose(
        preset: str | None = None,
        model: str | None = None,
        topology: str | None = None,
        method: str | None = None,
        dataset: str = "synthetic",
    ) -> Preset:
        """The preset that these options select."""
        if model is None and preset is None and topology is not None:
            model = "topology"
        return find_preset(name=preset, model=model, method=method, dataset=dataset)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.keeps(self.preset.method)
        if self.alignment_every is not None and self.alignment_every < 1:
            raise UserError(f"--alignment-every {self.alignment_every}: give at least 1.")
        if self.keep_weights < 0:
            raise UserError(f"--keep-weights {self.keep_weights}: give 0 or more.")
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST:
            raise UserError(f"--image-size {self.image_size}: give 1 to {LARGEST}.")
        if self.image_dir is None:
            if self.image_size is not None:
                raise UserError("--image-size is about your own images. Give them with --image-dir, or leave it out.")
        elif self.dataset != "synthetic" or self.data_dir is not None:
            option = "--data-dir" if self.dataset == "synthetic" else "--dataset"
            raise UserError(f"{option} and --image-dir name two sets of images. Leave one of them out.")

    def check(self, typed: frozenset[str]) -> None:
        """Refuse options that were typed and have no effect."""
        refuse_without_effect(typed, self.preset, NEEDS)

    def lengths(self) -> dict[str, str]:
        """A run can be prolonged: nothing in it depends on its length."""
        return {"epochs": ""}

    @property
    def data_name(self) -> str:
        """The data set, or the folder of images."""
        return self.dataset if self.image_dir is None else name_of(self.image_dir, "images")

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.named or f'{self.preset.model}_{slug(self.preset.method)}'}-{self.data_name}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """The settings that determine the run's numbers and curves."""
        own = {"dataset": self.data_name, "image_size": self.image_size, "seed": self.seed}
        return vars(self.preset) | own | {"alignment_every": self.alignment_every}


def train(config: Config, run: Run | None = None, data: Data | None = None) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        data: The images, from `load`; None: they are loaded here.

    Returns:
        The result (see `harness.tables.results.make_result`), with curves per epoch.

    Raises:
        UserError: an impossible configuration, missing or damaged data, or a loss that is not finite.
    """
    preset, data = config.preset, data or load(config)
    run = run or NullRun("vision", config.settings())
    seed_everything(config.seed)
    model = build_model(preset, data.shape, data.outputs).to(data.device)
    feedback, keeps = feedback_of(preset, config.seed), config.keeps(preset.method)
    attachment = attach(model, preset.method, feedback=feedback, memory=keeps)
    batch = data.test.drawn(preset.batch, config.seed)

    def alignment() -> dict[str, float]:
        with products(preset.precision):
            return batch_alignment(model, attachment, batch.x, batch.y, LOSSES[preset.loss])

    every: dict[str, Any] = {"alignment_every": config.alignment_every, "checkpoint_every": config.checkpoint_every}
    history = fit(run, model, attachment, data, preset, alignment, **every)
    curves = history.curves() | first_weights(model, config.keep_weights)
    return run.finish(model=preset.model, metrics=history.metrics(), curves=curves, device=data.device)


def first_weights(model: nn.Module, units: int) -> dict[str, Any]:
    """Weights of the first `units` units of the lowest layer, to three digits; nothing for 0."""
    if units == 0:
        return {}
    weight = next(p for p in model.parameters() if p.dim() > 1).detach()[:units].flatten(1)
    return {"first_weights": [[round(value, 3) for value in row] for row in weight.tolist()]}


def load(config: Config) -> Data:
    """The images of `config`, prepared as its preset says, on the device of this process.

    Raises:
        UserError: they are missing or damaged, or the preset asks for something that they, the device or several
            processes do not have.
    """
    preset, device = config.preset, pick_device(config.device)
    check_precision(preset.precision, device)
    data = processes.current().once(partial(read, config)).to(device)
    if preset.train_images is not None:
        data = with_fewer(data, preset.train_images, config.seed)
    check(preset, data)
    return data


def with_fewer(data: Data, count: int, seed: int) -> Data:
    """The data with `count` of its training images, drawn by the seed."""
    if count > len(data.train):
        raise UserError(f"--train-images {count}: there are {len(data.train)} to train on. Give fewer.")
    return replace(data, train=data.train.drawn(count, seed))


def read(config: Config) -> Data:
    """The images of `config`, as they are read."""
    preset = config.preset
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


def check(preset: Preset, data: Data) -> None:
    """Raise `UserError` for a preset that the data, or several processes, do not support."""
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
            f"--method {preset.method} reads class targets, and {data.name} is a regression, which has none. Use "
            "another method, or a data set with classes."
        )
    if preset.loss != "mse":
        raise UserError(f"--loss {preset.loss} needs classes, and {data.name} is a regression. Use --loss mse.")


if __name__ == "__main__":
    from harness.command import command

    command("vision", Config, load, train)
