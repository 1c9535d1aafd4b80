"""DFA through a bottleneck: how much of a layer's gradients may be missing (arXiv 1906.04554).

    python -m vision.bottleneck --size 18 --init pai --dataset cifar10 --seed 0

The network and its masks are in `model.py`, the pre-alignment initialisation (pai) in `prealign.py`. Settings are
those of that paper's fully connected network: plain SGD of 5e-4, batches of 128, 50 epochs, and an error that hidden
layers receive summed over the batch. Train accuracy is counted while an epoch runs, as published; alignment is
measured after it, on one batch of test images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from harness import config
from harness.device import pick_device
from harness.errors import UserError
from harness.methods import slug
from harness.precision import Precision, check_precision, products
from harness.run import NullRun, Run
from harness.seeds import seed_everything
from tinydfa import Method, attach
from vision.bottleneck.model import alignments, bottleneck_net
from vision.bottleneck.prealign import prealign
from vision.bottleneck.preset import Bottleneck
from vision.data.sets import load_data
from vision.data.splits import Data
from vision.losses import LOSSES
from vision.preset import Preset
from vision.training import check_batches, fit


@dataclass(frozen=True, kw_only=True)
class Config(config.RunConfig):
    """Train through a bottleneck. Settings that are left out are the published ones."""

    dataset: str = "digits"
    """digits, which needs no files, mnist, fashion-mnist or cifar10."""
    size: int | None = None
    """b: entries that the middle layer's gradients keep, of as many as it is wide; all if left out."""
    init: Literal["std", "pai"] = "std"
    """std: torch's; pai: pre-aligned with the feedback (see vision.bottleneck.prealign)."""
    width: int = 800
    """Width of the three hidden layers."""
    lr: float | None = None
    """Learning rate."""
    batch: int | None = None
    """Images a step."""
    precision: Precision = "fp32"
    """bf16: products of numbers rounded to bfloat16."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.resolve()

    def resolve(self) -> Bottleneck:
        """The experiment that these arguments mean."""
        given = {field.name: getattr(self, field.name) for field in fields(Bottleneck)}
        return Bottleneck(**{name: value for name, value in given.items() if value is not None})


def train(
    config: Config, run: Run | None = None, data: Data | None = None, setting: Bottleneck | None = None
) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        data: The images, if they were loaded already.
        setting: What is trained; None: what the arguments of `config` mean.

    Returns:
        The result (see `harness.tables.results.make_result`); accuracies and alignments per epoch and of the last one.

    Raises:
        UserError: missing or damaged data, too few of them for a batch, or a loss that is not finite.
    """
    setting = setting or config.resolve()
    preset = setting.training()
    device = pick_device(config.device)
    data = (data or load_images(config, preset)).to(device)
    run = run or NullRun("vision", resolved(config, setting))
    seed_everything(config.seed)
    features = math.prod(data.shape)
    model = bottleneck_net(features, data.outputs, setting.width, setting.kept, preset.batch, config.seed).to(device)
    attachment = attach(model, Method.DFA, feedback=replace(preset.feedback, seed=config.seed))
    loss_fn = LOSSES[preset.loss]
    if setting.init == "pai":
        batch = data.train.drawn(preset.batch, config.seed)
        prealign(model, attachment, batch.x, batch.y, loss_fn)
    attachment.method = preset.method
    test = data.test.drawn(preset.batch, config.seed)

    def alignment() -> dict[str, float]:
        with products(preset.precision):
            return alignments(model, attachment, test.x, test.y, loss_fn)

    measure = None if preset.method is Method.BP else alignment
    history = fit(run, model, attachment, data, preset, measure=measure, checkpoint_every=config.checkpoint_every)
    return run.finish(model="bottleneck", metrics=history.metrics(), curves=history.curves(), device=device)


def load_images(config: Config, preset: Preset) -> Data:
    """The images of `config`, prepared as the preset says.

    Raises:
        UserError: they are missing or damaged, or have no classes.
    """
    data = load_data(config.dataset, config.data_dir, normalise=preset.normalise, seed=config.seed)
    if data.classes is None:
        raise UserError(f"--dataset {config.dataset} is a regression, and this experiment needs classes. Use cifar10.")
    check_batches(preset, data)
    return data


def resolved(config: Config, setting: Bottleneck) -> dict[str, Any]:
    """All that decided the run: the training, the bottleneck, the data set and the seed."""
    own = {"size": setting.kept, "init": setting.init, "dataset": config.dataset, "seed": config.seed}
    return vars(setting.training()) | own


def main(config: Config) -> None:
    """Run the command."""
    setting = config.resolve()
    preset = setting.training()
    name = f"bottleneck_{setting.kept}_{setting.init}_{slug(preset.method)}-{config.dataset}-{config.seed}"
    settings = resolved(config, setting) | {"device": config.device, "data_dir": config.data_dir}
    data = load_images(config, preset)  # before the folder is made: a missing file should not leave one behind
    check_precision(preset.precision, pick_device(config.device))
    with Run("vision", name, settings, config.out, config.resume) as run:
        train(config, run, data)
