"""DFA through a bottleneck: how much of a layer's gradients may be missing (arXiv 1906.04554).

    python -m vision.bottleneck --keep 18 --init pai --dataset cifar10 --seed 0

The network and its masks are in `model.py`, the pre-alignment initialisation (pai) in `prealign.py`. Settings are
those of that paper's fully connected network: plain SGD of 5e-4, batches of 128, 50 epochs, and an error that hidden
layers receive summed over the batch. Train accuracy is counted while an epoch runs, as published; alignment is
measured after it, on one batch of test images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from harness.config import BaseConfig
from harness.device import pick_device
from harness.errors import UserError
from harness.methods import slug
from harness.options import Flat
from harness.precision import check_precision, products
from harness.run import NullRun, Run
from harness.seeds import seed_everything
from tinydfa import Method, attach
from vision.bottleneck.model import alignments, bottleneck_net
from vision.bottleneck.prealign import prealign
from vision.bottleneck.preset import BottleneckPreset
from vision.data.sets import load_data
from vision.data.splits import Data
from vision.losses import LOSSES
from vision.training import check_batches, fit

# Why accelerate and torchrun are refused.
ALONE = "its masks are drawn for the samples of a whole batch"


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Train through a bottleneck."""

    renamed: ClassVar = {"size": "--keep"}

    preset: Flat[BottleneckPreset]
    dataset: str = "synthetic"
    """synthetic (also called digits), which needs no files, mnist, fashion-mnist or cifar10."""

    @staticmethod
    def choose(method: str | None = None) -> BottleneckPreset:
        """The settings that these options select."""
        return BottleneckPreset(method=method or Method.DFA)

    def lengths(self) -> dict[str, str]:
        """A run can be prolonged: nothing in it depends on its length."""
        return {"epochs": ""}

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        preset = self.preset
        return f"bottleneck_{preset.kept}_{preset.init}_{slug(preset.method)}-{self.dataset}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """The settings that determine the run's numbers."""
        return vars(self.preset) | {"keep": self.preset.kept, "dataset": self.dataset, "seed": self.seed}


def train(config: Config, run: Run | None = None, data: Data | None = None) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        data: The images, from `load`; None: they are loaded here.

    Returns:
        The result (see `harness.tables.results.make_result`); accuracies and alignments per epoch and of the last one.

    Raises:
        UserError: missing or damaged data, too few of them for a batch, or a loss that is not finite.
    """
    setting, preset, data = config.preset, config.preset.training(), data or load(config)
    run = run or NullRun("vision", config.settings())
    seed_everything(config.seed)
    features = math.prod(data.shape)
    model = bottleneck_net(features, data.outputs, setting.width, setting.kept, preset.batch, config.seed)
    attachment = attach(model.to(data.device), Method.DFA, feedback=replace(preset.feedback, seed=config.seed))
    loss_fn, test = LOSSES[preset.loss], data.test.drawn(preset.batch, config.seed)
    if setting.init == "pai":
        batch = data.train.drawn(preset.batch, config.seed)
        prealign(model, attachment, batch.x, batch.y, loss_fn)
    attachment.method = preset.method

    def alignment() -> dict[str, float]:
        with products(preset.precision):
            return alignments(model, attachment, test.x, test.y, loss_fn)

    every: dict[str, Any] = {
        "alignment_every": None if preset.method is Method.BP else 1,
        "checkpoint_every": config.checkpoint_every,
    }
    history = fit(run, model, attachment, data, preset, alignment, **every)
    return run.finish(model="bottleneck", metrics=history.metrics(), curves=history.curves(), device=data.device)


def load(config: Config) -> Data:
    """The images of `config`, prepared for its network, on the device.

    Raises:
        UserError: they are missing or damaged, or have no classes.
    """
    preset, device = config.preset.training(), pick_device(config.device)
    check_precision(preset.precision, device)
    data = load_data(config.dataset, config.data_dir, normalise=preset.normalise, seed=config.seed).to(device)
    if data.classes is None:
        raise UserError(f"--dataset {config.dataset} is a regression, and this experiment needs classes. Use cifar10.")
    check_batches(preset, data)
    return data
