"""The columns of the scoreboard: one model of one task on one data set, at one short length, the same for every rule.

Every rule has the preset of its column, but for the learning rate, which is the best of `Column.factors` times the
preset's by the validation score of seed 0. On graphs the error is taken before the last aggregation, by every rule that
has one; in click models the embeddings learn by the gradient of the first hidden layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphs.presets import PRESETS as GRAPHS
from nerf.presets import PRESETS as NERF
from nlp.presets import PRESETS as NLP
from recsys.presets import PRESETS as RECSYS
from tinydfa import Method
from vision.preset import Preset as Vision

FACTORS = (1 / 3, 1.0, 3.0)  # of the column's learning rate
FINER = (1 / 3, 1.0, 2.0, 3.0)  # where a factor of 3 steps over the best rate: backpropagation's, in a Transformer
EXACT_EVERY = 50  # two of a hundred passes are backpropagation's
LOOKS = {
    "fitted": f"fitted(exact_every={EXACT_EVERY})",
    "calibrated": f"calibrated(exact_every={EXACT_EVERY})",
}
# A batch of images has few rows, so that an estimate needs more looks: one in twenty passes.
MORE_LOOKS = LOOKS | {name: f"{name}(probe_every=20)" for name in ("fdfa", "fitted_forward")}


@dataclass(frozen=True, kw_only=True)
class Column:
    """What every rule is asked to train."""

    name: str  # of its results file
    task: str
    title: str  # "Cora"
    model: str  # "GraphConv"
    dataset: str
    preset: Any  # the task's, by backpropagation, at the length of the board
    length: str  # in words, for the head of the column
    published: str = ""  # the length that the preset has in the task's own tables, where it is longer
    options: Mapping[str, Any] = field(default_factory=dict)  # of the run: which scene, how many rows
    quick: Mapping[str, Any] = field(default_factory=dict)  # fields of the preset at scale "quick", on embedded data
    quick_options: Mapping[str, Any] = field(default_factory=dict)
    metric: str  # of a result
    validation: str
    higher: bool  # is better
    unit: str
    scale: float = 1.0  # shown is the metric times this
    decimals: int = 1
    seconds: float  # of a run by backpropagation on one core, for the forecast
    factors: tuple[float, ...] = FACTORS
    rules: Mapping[str, str] = field(default_factory=lambda: LOOKS)  # a rule with the options it has here

    def rule(self, method: str) -> str:
        """The rule that a row means here, with its options."""
        return self.rules.get(method, method)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates that every rule tries.

        Example:
            >>> COLUMNS["cora"].rates
            (0.00333, 0.01, 0.03)
        """
        return tuple(float(f"{factor * self.preset.lr:.3g}") for factor in self.factors)  # 0.3, not 0.30000000000000004


def _graph(name: str, title: str, seconds: float) -> Column:
    preset = replace(GRAPHS["gcn_bp"], error_at="conv2.transformed")
    return Column(
        name=name,
        task="graphs",
        title=title,
        model="GraphConv",
        dataset=name,
        preset=preset,
        length=f"{preset.epochs} steps",
        quick={"epochs": 10},
        metric="test_accuracy",
        validation="val_accuracy",
        higher=True,
        unit="% accuracy",
        scale=100,
        seconds=seconds,
    )


def _clicks(model: str, dataset: str, title: str, epochs: int, seconds: float) -> Column:
    names = {"deepfm": "DeepFM", "dcn": "DCN"}
    of_log = "teacher" if dataset == "synthetic" else dataset
    preset = replace(
        RECSYS[f"{model}_bp_{dataset}"], lr=3e-3, embedding_feedback="through", max_epochs=epochs, patience=epochs
    )
    return Column(
        name=f"{model}-{of_log}",
        task="recsys",
        title=title,
        model=names[model],
        dataset=dataset,
        preset=preset,
        length=f"{epochs} epochs" if epochs > 1 else "1 epoch",
        published="" if dataset == "synthetic" else "20 epochs at most",
        options={"rows": 100_000} if dataset == "synthetic" else {},
        quick={"max_epochs": 1},
        quick_options={"rows": 3000},
        metric="test_auc",
        validation="val_auc",
        higher=True,
        unit="AUC",
        decimals=4,
        seconds=seconds,
    )


def _docs(granularity: str, steps: int, seconds: float) -> Column:
    base = NLP["small_ours" if granularity == "macro" else "small_micro_ours"]
    preset = replace(base, method=Method.BP, error_at="norm", lr=2e-3, steps=steps, validate_every=steps)
    return Column(
        name=f"docs-{granularity}",
        task="nlp",
        title=f"docs, {granularity}",
        model="Transformer 4 x 128",
        dataset="docs",
        preset=preset,
        length=f"{steps} steps",
        published=f"{base.steps} steps",
        quick={"layers": 2, "d_model": 32, "d_ff": 64, "heads": 2, "vocabulary_size": 300, "chunk": 16, "batch": 4}
        | {"steps": 10, "validate_every": 10},
        metric="test_nats",
        validation="val_nats",
        higher=False,
        unit="nats a token",
        decimals=3,
        seconds=seconds,
        factors=FINER,
    )


def _scene(scene: str, dataset: str, steps: int, seconds: float) -> Column:
    base = NERF["small_bp"]
    return Column(
        name=scene,
        task="nerf",
        title=f"{scene}, 100 pixels",
        model="radiance field 4 x 128",
        dataset=dataset,
        preset=replace(base, steps=steps, test_views=2, val_views=2),
        length=f"{steps} steps",
        published=f"{base.steps} steps",
        options={"scene": scene, "log_every": steps},
        quick={"size": 16, "width": 16, "depth": 2, "samples_coarse": 4, "samples_fine": 4, "rays": 32}
        | {"steps": 6, "test_views": 1, "val_views": 1},
        quick_options={"scene": None, "log_every": 6},
        metric="test_psnr",
        validation="val_psnr",
        higher=True,
        unit="dB",
        decimals=2,
        seconds=seconds,
    )


PERCEPTRON = Vision(
    method=Method.BP, hidden=(500, 500), act="tanh", loss="ce", lr=5e-4, batch=100, epochs=1, hold_out=5000
)
PERCEPTRON_CIFAR = replace(PERCEPTRON, normalise=True, epochs=2)
LENET = replace(
    PERCEPTRON, model="lenet", act="relu", init="xavier", normalise=True, pad_to=32, lr=1e-3, batch=64, epochs=1
)
RESNET = replace(LENET, model="resnet20", batch=32, train_images=5000)


def _images(name: str, title: str, model: str, dataset: str, preset: Vision, seconds: float) -> Column:
    images = f" of {preset.train_images:,} images" if preset.train_images else ""
    return Column(
        name=name,
        task="vision",
        title=title,
        model=model,
        dataset=dataset,
        preset=preset,
        length=f"{preset.epochs} epoch{'s' if preset.epochs > 1 else ''}{images}",
        quick={"epochs": 2, "hold_out": 100, "train_images": 300, "pad_to": 32 if preset.pad_to else None},
        metric="test_error",
        validation="val_error",
        higher=False,
        unit="% error",
        scale=100,
        seconds=seconds,
        rules=MORE_LOOKS,
    )


COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        _graph("cora", "Cora", 1),
        _graph("citeseer", "CiteSeer", 1),
        _images("fc-mnist", "MNIST", "FC 500-500", "mnist", PERCEPTRON, 3),
        _graph("pubmed", "PubMed", 4),
        _clicks("deepfm", "ml-100k", "MovieLens-100K", 4, 9),
        _clicks("dcn", "ml-100k", "MovieLens-100K", 4, 9),
        _images("fc-cifar", "CIFAR-10", "FC 500-500", "cifar10", PERCEPTRON_CIFAR, 9),
        _clicks("deepfm", "synthetic", "teacher's log", 2, 8),
        _clicks("dcn", "synthetic", "teacher's log", 2, 8),
        _docs("macro", 200, 30),
        _scene("lego", "blender", 200, 25),
        _images("lenet-cifar", "CIFAR-10", "LeNet", "cifar10", LENET, 15),
        _docs("micro", 200, 30),
        _scene("fern", "llff", 200, 25),
        _images("resnet-cifar", "CIFAR-10", "ResNet-20", "cifar10", RESNET, 16),
    )
}
