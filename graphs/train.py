"""Node classification: train one model on one citation graph by one method.

    python -m graphs.train --model gcn --dataset cora --method dfa --seed 0

Full batch, Adam, a fixed number of epochs. Reported is the test accuracy at the epoch of the best validation accuracy
(the first one, if several share it), as in the published code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from graphs.config import ALONE, BaseConfig
from graphs.data.graph import Graph
from graphs.data.load import load_graph
from graphs.measurement import Alignment, check_alignment, check_classes
from graphs.models.networks import build_model
from graphs.presets import NEEDS, Preset, find_preset
from graphs.pseudo_errors import output_gradient
from harness.device import pick_device
from harness.errors import UserError
from harness.files import name_of
from harness.methods import slug
from harness.options import Flat, PresetName, refuse_without_effect
from harness.run import NullRun, Run
from harness.run.stateful import Record
from harness.seeds import seed_everything
from tinydfa import Attachment, attach


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Train a node classifier on a citation graph."""

    preset: Flat[Preset]
    named: PresetName = None
    graph: Path | None = None
    """A graph of your own, in place of --dataset: an .npz file of arrays, or a .pt file of PyTorch Geometric."""
    alignment_every: int | None = None
    """Epochs between measurements of the alignment with backpropagation; none if left out."""

    @staticmethod
    def choose(preset: str | None = None, model: str | None = None, method: str | None = None) -> Preset:
        """The preset that these options select."""
        return find_preset(name=preset, model=model, method=method)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.graph is not None and (self.dataset != "synthetic" or self.data_dir is not None):
            option = "--data-dir" if self.dataset == "synthetic" else "--dataset"
            raise UserError(f"{option} and --graph name two graphs. Leave one of them out.")
        if self.alignment_every is not None:
            check_alignment(self.alignment_every, self.preset.method)

    def check(self, typed: frozenset[str]) -> None:
        """Refuse options that were typed and have no effect."""
        refuse_without_effect(typed, self.preset, NEEDS)

    @property
    def data_name(self) -> str:
        """The data set, or the file of one's own."""
        return self.dataset if self.graph is None else name_of(self.graph, "graph")

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.named or f'{self.preset.model}_{slug(self.preset.method)}'}-{self.data_name}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """All that decided the run: the preset, the data set and the seed; and what was measured."""
        measured = {} if self.alignment_every is None else {"alignment_every": self.alignment_every}
        return self.preset.settings() | {"dataset": self.data_name, "seed": self.seed} | measured


@dataclass
class History(Record):
    """What happened in each epoch, and the best epoch so far."""

    train_loss: list[float] = field(default_factory=list)  # nats per training node, dropout on
    val_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)

    def add(self, loss: float, val: float, test: float) -> None:
        """Append one epoch."""
        self.train_loss.append(loss)
        self.val_accuracy.append(val)
        self.test_accuracy.append(test)

    def metrics(self) -> dict[str, float]:
        """Accuracies as fractions, at the first epoch of the best validation accuracy."""
        best = max(range(len(self.val_accuracy)), key=self.val_accuracy.__getitem__)
        return {
            "test_accuracy": self.test_accuracy[best],
            "val_accuracy": self.val_accuracy[best],
            "best_epoch": best + 1,
            "final_test_accuracy": self.test_accuracy[-1],
            "final_train_loss": self.train_loss[-1],
        }


def train(config: Config, run: Run | None = None, graph: Graph | None = None) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        graph: The graph, if it was loaded already.

    Returns:
        The result (see `harness.tables.results.make_result`), with curves per epoch.

    Raises:
        UserError: an impossible configuration, missing or damaged data, or a loss that is not finite.
    """
    preset, device = config.preset, pick_device(config.device)
    graph = (graph or load(config)).to(device)
    run = run or NullRun("graphs", config.settings())
    seed_everything(config.seed)
    model = build_model(preset, graph.features, graph.classes).to(device)
    attachment = attach_method(model, preset, config.seed)
    optimizer, history = make_optimizer(model, preset), History()
    alignment = Alignment(model, graph, attachment, every=config.alignment_every, last=preset.epochs)
    state = {"model": model, "attachment": attachment, "optimizer": optimizer, "history": history}
    done, target = run.resume(state | alignment.state()), training_target(graph)
    for epoch in run.track(range(done + 1, preset.epochs + 1), f"{preset.model}, {preset.method}"):
        attachment.target = target
        loss = train_epoch(model, graph, optimizer, preset)
        val, test = evaluate(model, graph)
        history.add(loss, val, test)
        run.log(epoch, train_loss=loss, val_accuracy=val, test_accuracy=test, **alignment.after(epoch))
        if epoch % config.checkpoint_every == 0:
            run.save(epoch, **state, **alignment.state())
    metrics = history.metrics() | alignment.metrics()
    return run.finish(model=preset.model, metrics=metrics, curves=vars(history) | alignment.curves, device=device)


def attach_method(model: nn.Module, preset: Preset, seed: int) -> Attachment:
    """Make `model` train by the preset's method, with the error taken where the preset says."""
    return attach(model, preset.method, output=preset.error_at, seed=seed)


def train_epoch(model: nn.Module, graph: Graph, optimizer: torch.optim.Optimizer, preset: Preset) -> float:
    """One full-batch step; the loss before it, in nats per training node."""
    model.train()
    optimizer.zero_grad()
    logits = model(graph)
    loss = F.cross_entropy(logits[graph.train], graph.y[graph.train])
    if preset.pseudo_errors:
        logits.backward(output_gradient(logits, graph, **preset.spreading))
    else:
        loss.backward()
    optimizer.step()
    return loss.item()


def training_target(graph: Graph) -> torch.Tensor:
    """Class of each training node, -1 for every other node, ``[N]``: what drtp and les read."""
    return torch.full_like(graph.y, -1).index_put_((graph.train,), graph.y[graph.train])


@torch.no_grad()
def evaluate(model: nn.Module, graph: Graph) -> tuple[float, float]:
    """Accuracies on the validation and the test nodes, fractions, from one forward pass."""
    model.eval()
    correct = model(graph).argmax(dim=1) == graph.y
    val, test = (correct[nodes].sum().item() / len(nodes) for nodes in (graph.val, graph.test))
    return val, test


def make_optimizer(model: nn.Module, preset: Preset) -> torch.optim.Optimizer:
    """Adam with the preset's weight decay, on everything or on the first convolution alone."""
    if preset.decay_top or preset.weight_decay == 0:
        return torch.optim.Adam(model.parameters(), lr=preset.lr, weight_decay=preset.weight_decay)
    first = [p for name, p in model.named_parameters() if name.startswith("conv1.")]
    others = [p for name, p in model.named_parameters() if not name.startswith("conv1.")]
    groups: list[dict[str, Any]] = [{"params": first, "weight_decay": preset.weight_decay}, {"params": others}]
    return torch.optim.Adam(groups, lr=preset.lr)


def load(config: Config) -> Graph:
    """The graph of `config`, with the features and the split of its preset.

    Raises:
        UserError: there is no such graph, or its nodes do not all have the class that an alignment needs.
    """
    graph = load_graph(
        config.dataset,
        config.data_dir,
        normalise_features=config.preset.normalise_features,
        five_folds=config.preset.five_folds,
        seed=config.seed,
        file=config.graph,
    )
    if config.alignment_every is not None:
        check_classes(graph)
    return graph


if __name__ == "__main__":
    from harness.command import command

    command("graphs", Config, load, train, alone=ALONE)
