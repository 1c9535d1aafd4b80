"""Many weak DFA learners and one layer on top of them.

    python -m vision.stacking --learners 10 --start same --top dense --dataset mnist --seed 0

After iacolippo's `Stacking-dfa-nets`, four scripts there. N networks 784-800-10 (tanh, sigmoid, weights, biases and
feedback standard normal) see the training images once; their outputs before the sigmoid, 10 each, become the 10 N
features of a layer that is trained on the same images. The learners start from the same weights or from weights of
their own; the feedback and the order of the images are each learner's own in either case.

    top         what it is                                                                  trained
    dense       a linear layer                                                              100 epochs, lr 1e-4
    rd-bp       the RD layer of `rd_layer.py`, by backpropagation                           200 epochs, lr 1e-3
    rd-dfa      the same by DFA with a feedback of its own                                  likewise
    rd-dfa-one  the same on the first sample of each batch alone, the rule of the release   likewise
    rd-dfa-r    the same by DFA with R, the layer's fixed matrix, as the feedback           likewise
    rd-shallow  the same with D1 fixed                                                      likewise

All by plain SGD in batches of 200, the last incomplete one left out. Gradients are sums over the batch, for the RD
layer means. The release computes these in another way: under backpropagation D1 takes the batch's mean and D2 its first
sample, under DFA both take the first sample; its script remarks that the former works and the latter does not. It ends
an RD training when two epochs have exactly the same training error; here it runs to the end. All layers on top start
from the same random numbers, so that RD layers of one run differ in the rule alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.config import BaseConfig, Unused
from harness.config import Method as MethodOption
from harness.device import pick_device
from harness.errors import UserError
from harness.methods import named
from harness.options import Flat, option
from harness.run import NullRun, Run
from harness.run.stateful import Record
from harness.seeds import seed_everything
from tinydfa import Attachment, Method, attach
from vision.data.sets import load_data
from vision.data.splits import Data, Split
from vision.iacolippo.presets import notebook
from vision.iacolippo.rd_layer import RDLayer, Rule, attach_rule, attainable_cosine
from vision.losses import LOSSES, wrong
from vision.models.fully_connected import FullyConnected
from vision.models.layers import initialise
from vision.optimizers import make_optimizer
from vision.preset import Preset
from vision.training import batch_alignment, evaluate, train_epoch

HIDDEN = 800
TOPS = ("dense", "rd-bp", "rd-dfa", "rd-dfa-one", "rd-dfa-r", "rd-shallow")
CHUNK = 1000  # samples at a time where features are computed


# Why accelerate and torchrun are refused.
ALONE = "its networks are small, and are trained one after the other"


@dataclass(frozen=True, kw_only=True)
class StackingPreset:
    """What decides a number. Its fields are options; the release's settings are the defaults."""

    method: MethodOption = Method.DFA
    learners: int = 10
    """How many weak learners."""
    start: Literal["same", "different"] = "different"
    """Whether all learners start from the same weights."""
    learner_epochs: int = 1
    """Passes of a learner over the training images."""
    top: Literal["dense", "rd-bp", "rd-dfa", "rd-dfa-one", "rd-dfa-r", "rd-shallow", "all"] = "dense"
    """The layer on top; all: one after the other, on the same features."""
    epochs: int | None = None
    """Passes of the layer on top; 100 of the dense layer and 200 of the others if left out."""
    batch: int = 200
    """Images a step."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", named(self.method))
        for name in ("learners", "learner_epochs", "epochs", "batch"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"{option(name)} {value}: give at least 1.")
        if self.start not in ("same", "different"):
            raise UserError(f"--start {self.start}: the learners' weights are 'same' or 'different'.")
        if self.top not in (*TOPS, "all"):
            raise UserError(f"--top {self.top}: no such layer. There are {', '.join(TOPS)}, and all.")

    @property
    def tops(self) -> tuple[str, ...]:
        """The layers to train."""
        return TOPS if self.top == "all" else (self.top,)

    def learner_preset(self) -> Preset:
        """How a weak learner is trained."""
        changes: dict[str, Any] = {"method": self.method, "epochs": self.learner_epochs, "lr": 1e-3, "tolerance": 0.0}
        return replace(notebook, hidden=(HIDDEN,), batch=self.batch, drop_last=True, **changes)

    def top_preset(self, top: str) -> Preset:
        """How the layer called `top` is trained. Its loss is a sum over outputs."""
        dense = replace(self.learner_preset(), method=Method.BP, lr=1e-4, epochs=self.epochs or 100)
        if top == "dense":
            return dense
        rd = replace(dense, method=rule_of(top).method, lr=1e-3, reduction="mean", epochs=self.epochs or 200)
        return replace(rd, batch=1) if top == "rd-dfa-one" else rd


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Train weak learners and a layer on their outputs."""

    renamed: ClassVar = {"init": "--start"}

    preset: Flat[StackingPreset]
    dataset: str = "synthetic"
    """synthetic (also called digits), which needs no files, mnist, fashion-mnist or cifar10."""
    checkpoint_every: Unused = 1  # there is one after every learner and every layer

    @staticmethod
    def choose(method: str | None = None) -> StackingPreset:
        """The settings that these options select."""
        return StackingPreset(method=method or Method.DFA)

    def lengths(self) -> dict[str, str]:
        """No run can be prolonged."""
        whole = "a layer on top is trained from its beginning to its end, on the outputs of all learners"
        return dict.fromkeys(("learners", "learner_epochs", "epochs"), whole)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        preset = self.preset
        return f"stacking_{preset.learners}_{preset.start}_{preset.top}-{self.dataset}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """The settings that determine the run's numbers."""
        return vars(self.preset) | {"dataset": self.dataset, "seed": self.seed}


@dataclass
class Trained(Record):
    """What is trained of a stack."""

    train: list[Tensor] = field(default_factory=list)  # each learner's outputs for the training images, [N, 10]
    test: list[Tensor] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)  # of each learner, on the test images
    initial: dict[str, Tensor] = field(default_factory=dict)  # the weights that all learners start from, if they do
    curves: dict[str, list[float]] = field(default_factory=dict)  # test errors by epoch, of each layer on top
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # of each layer on top


def stack(config: Config, run: Run | None = None, data: Data | None = None) -> dict[str, Any]:
    """Train the learners and what is to be on top of them.

    Returns:
        The result. Metrics are test errors, shares: "learner_error_mean" and "learner_error_best" of the learners,
        "average_error" of the mean of their outputs before the sigmoid, and for every top "test_error TOP" and
        "train_error TOP" after the last epoch; where an RD layer learns by DFA also "alignment TOP", the mean cosine
        between its signal and backpropagation's on test samples after the last epoch, and "attainable TOP" (see
        `rd_layer.attainable_cosine`). Curves are the test errors by epoch, under the name of the top.

    Raises:
        UserError: missing or damaged data, a regression, a batch larger than the data, or a loss that is not finite.
    """
    data = data or load(config)
    run = run or NullRun("vision", config.settings())
    seed_everything(config.seed)
    done = Trained()
    run.resume({"trained": done})
    outputs, metrics = learner_outputs(config, data, run, done)
    for number, top in enumerate(config.preset.tops):
        if top not in done.curves:
            done.curves[top], done.metrics[top] = train_top(config, top, outputs, run, number)
            run.save(config.preset.learners + number + 1, trained=done)
        metrics |= {f"{name} {top}": value for name, value in done.metrics[top].items()}
    return run.finish(model="stacking", metrics=metrics, curves=done.curves, device=data.device)


def learner_outputs(config: Config, data: Data, run: Run, done: Trained) -> tuple[Data, dict[str, float]]:
    """Train the learners that are not trained yet, one after the other.

    Returns:
        The data with the outputs of all learners, ``[samples, 10 N]`` before the sigmoid, in place of the images; and
        the errors of the learners and of their average.
    """
    preset = config.preset
    for number in run.track(range(len(done.errors), preset.learners), "learners"):
        model = FullyConnected((math.prod(data.shape), HIDDEN, data.outputs), "tanh").to(data.device)
        initialise(model, "normal")
        if preset.start == "same":
            done.initial = done.initial or {name: value.clone() for name, value in model.state_dict().items()}
            model.load_state_dict(done.initial)
        loss = train_learner(model, config, data.train, number)
        done.train.append(outputs_of(model, data.train.x).cpu())
        done.test.append(outputs_of(model, data.test.x).cpu())
        done.errors.append(wrong(done.test[-1], data.test.y.cpu()).item() / len(data.test))
        run.log(number + 1, learner_loss=loss, learner_error=done.errors[-1])
        run.save(number + 1, trained=done)
    average = torch.stack(done.test).mean(dim=0)
    metrics = {
        "learner_error_mean": sum(done.errors) / len(done.errors),
        "learner_error_best": min(done.errors),
        "average_error": wrong(average, data.test.y.cpu()).item() / len(data.test),
    }
    sets = ((done.train, data.train), (done.test, data.test))
    features = [Split(torch.cat(parts, dim=1).to(data.device), split.y) for parts, split in sets]
    return replace(data, shape=(preset.learners * data.outputs,), train=features[0], test=features[1]), metrics


def train_learner(model: FullyConnected, config: Config, data: Split, number: int) -> float:
    """Train one learner with a feedback of its own; the loss of its last epoch, nats per sample."""
    preset = config.preset.learner_preset()
    feedback = replace(preset.feedback, seed=feedback_seed(config.seed, number))
    attachment = attach(model, preset.method, feedback=feedback)
    optimizer = make_optimizer(preset.optimizer, model, preset.lr)
    for _ in range(preset.epochs):
        loss, _ = train_epoch(model, data, optimizer, preset, attachment)
    return loss


@torch.no_grad()
def outputs_of(model: nn.Module, x: Tensor) -> Tensor:
    """What a learner says before the sigmoid, ``[samples, 10]``."""
    model.eval()
    return torch.cat([model(part) for part in x.split(CHUNK)])


def train_top(config: Config, top: str, data: Data, run: Run, number: int) -> tuple[list[float], dict[str, float]]:
    """Train the layer called `top` on the learners' outputs.

    Returns:
        Test errors by epoch, and the layer's metrics, see `stack`.
    """
    preset = config.preset.top_preset(top)
    model, attachment = build_top(config, top, data)
    optimizer = make_optimizer(preset.optimizer, model, preset.lr)
    curve: list[float] = []
    for epoch in run.track(range(1, preset.epochs + 1), top):
        part = first_samples(data.train, config.preset.batch) if top == "rd-dfa-one" else data.train
        loss, _ = train_epoch(model, part, optimizer, preset, attachment)
        curve.append(test_error(model, data.test, preset))
        step = config.preset.learners + epoch + number * preset.epochs
        run.log(step, **{f"{top}_loss": loss, f"{top}_test_error": curve[-1]})
    metrics = {"test_error": curve[-1], "train_error": test_error(model, data.train, preset)}
    return curve, metrics | alignments(model, attachment, data.test, preset)


def build_top(config: Config, top: str, data: Data) -> tuple[nn.Module, Attachment]:
    """A fresh layer, and how it learns; the generators are set, so that it does not matter what was trained before."""
    (features,), device = data.shape, data.train.x.device
    seed_everything(config.seed)
    if top == "dense":
        dense = nn.Linear(features, data.outputs)
        initialise(dense, "normal")
        return dense.to(device), attach(dense, Method.BP)
    layer = RDLayer(features, data.outputs).to(device)
    return layer, attach_rule(layer, rule_of(top), feedback_seed(config.seed, config.preset.learners))


def rule_of(top: str) -> Rule:
    """The rule of an RD layer on top."""
    return Rule(top.removeprefix("rd-").removesuffix("-one"))


def first_samples(data: Split, batch: int) -> Split:
    """The first sample of each of an epoch's whole batches, in a fresh order."""
    chosen = torch.randperm(len(data))[: len(data) // batch].to(data.x.device)
    return Split(data.x[chosen], data.y[chosen])


def test_error(model: nn.Module, data: Split, preset: Preset) -> float:
    """Share of wrong answers."""
    _, error = evaluate(model, data, preset)
    assert error is not None  # classes, not a regression: see `load`
    return error


def alignments(model: nn.Module, attachment: Attachment, data: Split, preset: Preset) -> dict[str, float]:
    """How near DFA's signal is to backpropagation's in an RD layer, and how near it can come; else nothing."""
    if not isinstance(model, RDLayer) or attachment.head is None or attachment.head.feedback_matrix is None:
        return {}
    found = batch_alignment(model, attachment, data.x[:CHUNK], data.y[:CHUNK], LOSSES[preset.loss])
    return {
        "alignment": found["point"],
        "attainable": attainable_cosine(model.r, attachment.head.feedback_matrix),
    }


def feedback_seed(seed: int, number: int) -> int:
    """A seed for the feedback of learner `number`, or of the layer on top: different in every run."""
    return 10_000 * seed + number


def load(config: Config) -> Data:
    """The images of `config`, pixels in [0, 1], on the device."""
    device, batch = pick_device(config.device), config.preset.batch
    data = load_data(config.dataset, config.data_dir).to(device)
    if data.classes is None:
        raise UserError(f"--dataset {config.dataset} is a regression, and a learner's errors need classes. Use mnist.")
    if batch > len(data.train):
        raise UserError(f"--batch {batch} leaves no whole batch of {len(data.train)} samples. Make it smaller.")
    return data
