"""How long a graph convolution takes to train on a citation graph: this project against PyG's example.

    python -m benchmarks.graphs_gcn --dataset cora

Both train the network of Kipf and Welling (two layers, 16 hidden units, dropout 0.5) by backpropagation for the same
number of epochs and report validation and test accuracy after each. PyG's side is written as in its example: dense
features, `GCNConv(cached=True)`, and a forward pass in training, one for the loss and one for the accuracies of all
masks. Runs alternate; shown are medians over rounds and the ratio within a round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn

from benchmarks.environment import save
from benchmarks.timing import interleave, ratio
from graphs.data.graph import Graph
from graphs.data.load import load_graph
from graphs.models.networks import build_model
from graphs.presets import PRESETS
from graphs.train import evaluate, make_optimizer, train_epoch
from tinydfa import attach


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time the training of a graph convolution against PyG's example."""

    dataset: str = "synthetic"
    """cora, citeseer, pubmed, or synthetic, which needs no files."""
    epochs: int = 250
    """Full-batch steps of a run."""
    rounds: int = 5
    """Runs of each contestant."""
    threads: int = 1
    """Threads that torch may use."""
    data_dir: Path | None = None
    """Data root; else $DFA_DATA, else the user's cache folder."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""


class ExampleNet(nn.Module):
    """The network of PyG's example, on dense features and an edge list."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.conv1 = pyg.GCNConv(features, 16, cached=True)
        self.conv2 = pyg.GCNConv(16, classes, cached=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """``[N, f], [2, E] -> [N, K]``."""
        h = F.dropout(self.conv1(x, edge_index).relu(), p=0.5, training=self.training)
        return self.conv2(h, edge_index)


def example_epoch(graph: Graph, x: Tensor) -> Callable[[], float]:
    """An epoch of training PyG's way, ready to be called again and again; it returns the test accuracy."""
    torch.manual_seed(0)
    model = ExampleNet(graph.features, graph.classes).to(x.device)
    groups = [{"params": model.conv1.parameters(), "weight_decay": 5e-4}, {"params": model.conv2.parameters()}]
    optimizer = torch.optim.Adam(groups, lr=0.01)

    def epoch() -> float:
        model.train()
        optimizer.zero_grad()
        out = model(x, graph.edge_index)
        F.cross_entropy(out[graph.train], graph.y[graph.train]).backward()
        optimizer.step()
        with torch.no_grad():
            model.eval()
            predicted = model(x, graph.edge_index).argmax(dim=-1)
            masks = (graph.train, graph.val, graph.test)
            accuracies = [int((predicted[m] == graph.y[m]).sum()) / len(m) for m in masks]
        return accuracies[-1]

    return epoch


def prepare(graph: Graph, method: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Our model and its optimiser for training by a method, with the settings of backpropagation."""
    torch.manual_seed(0)
    model = build_model(PRESETS["gcn_bp"], graph.features, graph.classes).to(graph.y.device)
    attach(model, method)
    return model, make_optimizer(model, PRESETS["gcn_bp"])


def our_epoch(graph: Graph, method: str) -> Callable[[], float]:
    """An epoch of training our way, ready to be called again and again; it returns the test accuracy."""
    model, optimizer = prepare(graph, method)

    def epoch() -> float:
        train_epoch(model, graph, optimizer, PRESETS["gcn_bp"])
        return evaluate(model, graph)[1]

    return epoch


def run(make_epoch: Callable[[], Callable[[], float]], epochs: int) -> float:
    """Train from the beginning; the test accuracy at the end."""
    epoch = make_epoch()
    return [epoch() for _ in range(epochs)][-1]


def main(config: Config) -> None:
    """Run the rounds and print the table."""
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(config.threads)
    graph = load_graph(config.dataset, config.data_dir)
    dense = graph.x.to_dense()
    contestants: dict[str, Callable[[], float]] = {
        "PyG example, bp": partial(run, partial(example_epoch, graph, dense), config.epochs),
        "graphs, bp": partial(run, partial(our_epoch, graph, "bp"), config.epochs),
        "graphs, dfa": partial(run, partial(our_epoch, graph, "dfa"), config.epochs),
    }
    accuracy = {name: train() for name, train in contestants.items()}  # and warm up
    times = interleave(dict(contestants), config.rounds, warm_up=0)
    title = f"{config.epochs} epochs on {config.dataset}, evaluation included, {config.threads} thread(s)"
    table = Table(title=title)
    for heading in ("", "seconds", "ratio to PyG", "test accuracy"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = []
    for name, seconds in times.items():
        relative = round(ratio(times, name, to="PyG example, bp"), 3)
        rows.append({"dataset": config.dataset, "epochs": config.epochs, "contestant": name, "ratio to PyG": relative})
        rows[-1] |= {"seconds": round(statistics.median(seconds), 3), "test_accuracy": round(accuracy[name], 4)}
        table.add_row(name, f"{statistics.median(seconds):.2f}", f"{relative:.3f}", f"{100 * accuracy[name]:.1f} %")
    Console().print(table)
    if config.out is not None:
        save(config.out, "cpu", rows)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
