"""What the hidden layer sees: t-SNE maps of a graph convolution's activations under three methods (Figure 2).

    python -m graphs.embed --dataset cora

Writes one picture with backpropagation, DFA and shallow training side by side, and the silhouette score of the classes
in each map (1: tight and apart, 0: overlapping, below: mixed up). tsnecuda computes the maps where it can be imported,
as in the paper; else openTSNE does, on the CPU, and the same seed gives the same map.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphs import train
from graphs.data.graph import Graph
from graphs.models.networks import GCN, build_model
from graphs.presets import MODELS
from harness.device import pick_device
from harness.errors import UserError
from harness.files import write_whole
from harness.methods import label as label_of
from harness.options import make
from harness.report.figures import canvas, png
from harness.seeds import check_seed, seed_everything
from harness.tables.results import make_result

TITLES = {"bp": "backpropagation", "dfa": "DFA", "shallow": "shallow"}
PERPLEXITY, LEARNING_RATE = 20, 100
CLASS_NAMES = {
    "cora": (
        "Theory",
        "Reinforcement learning",
        "Genetic algorithms",
        "Neural networks",
        "Probabilistic methods",
        "Case based",
        "Rule learning",
    )
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Draw the hidden layer of a graph convolution under bp, dfa and shallow."""

    dataset: str = "synthetic"
    """cora, citeseer, pubmed, or synthetic, which needs no files."""
    seed: int = 0
    """Seed of the training and of the map."""
    epochs: int | None = None
    """Full-batch steps; 250 if left out."""
    iterations: int = 5000
    """Steps of t-SNE; a tenth of them is added for its early exaggeration."""
    data_dir: Path | None = None
    """Data root; else $DFA_DATA, else the user's cache folder."""
    out: Path = Path("embeddings.png")
    """The picture."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise UserError(f"--iterations {self.iterations}: give at least 1.")
        check_seed(self.seed)
        if os.path.isdir(self.out):  # unlike the path's own word, no error where the name is too long
            raise UserError(f"--out {self.out} is a folder. Name a file, such as {self.out / 'embeddings.png'}.")


def embed(config: train.Config, iterations: int = 5000) -> dict[str, Any]:
    """Train a graph convolution and map its hidden activations to the plane.

    Returns:
        The result: metrics "silhouette" (of the map) and "silhouette_hidden" (of the 16 activations), and curves "x",
        "y" and "label", one entry a node.
    """
    start = perf_counter()
    hidden, graph, accuracy = hidden_activations(config)
    check_spread(hidden, config)
    label = graph.y.cpu().numpy()
    flat = tsne(hidden.cpu().numpy(), config.seed, iterations)
    metrics = {
        "silhouette": silhouette(flat, label),
        "silhouette_hidden": silhouette(hidden.cpu().numpy(), label),
        "test_accuracy": accuracy,
    }
    return make_result(
        task="graphs",
        model="gcn",
        dataset=config.dataset,
        method=config.preset.method,
        seed=config.seed,
        metrics=metrics,
        seconds=perf_counter() - start,
        config=config.settings() | {"iterations": iterations},
        device=graph.y.device,
        curves={"x": flat[:, 0].round(2).tolist(), "y": flat[:, 1].round(2).tolist(), "label": label.tolist()},
    )


def hidden_activations(config: train.Config) -> tuple[Tensor, Graph, float]:
    """Hidden activations ``[N, 16]`` after the last epoch, the graph, and the test accuracy then."""
    preset = config.preset
    if preset.model != "gcn":
        raise UserError(f"--model {preset.model}: Figure 2 is about gcn ({MODELS['gcn']}).")
    device = pick_device(config.device)
    graph = train.load(config).to(device)
    seed_everything(config.seed)
    model = build_model(preset, graph.features, graph.classes).to(device)
    assert isinstance(model, GCN)
    train.attach_method(model, preset, config.seed)
    optimizer = train.make_optimizer(model, preset)
    for _ in range(preset.epochs):
        train.train_epoch(model, graph, optimizer, preset)
    _, accuracy = train.evaluate(model, graph)
    with torch.no_grad():
        return model.hidden(graph), graph, accuracy


def check_spread(hidden: Tensor, config: train.Config) -> None:
    """Raise `UserError` for activations that are the same at every node: a map of them is not a number anywhere."""
    if not hidden.isfinite().all() or torch.equal(hidden, hidden[:1].expand_as(hidden)):
        preset = config.preset
        raise UserError(
            f"the hidden layer of {preset.model} has the same activations at every node after {preset.epochs} epochs "
            f"by {preset.method}, so there is nothing to map. Use another --seed, or other --epochs."
        )


def tsne(points: np.ndarray, seed: int, iterations: int) -> np.ndarray:
    """A map of ``[N, d]`` to ``[N, 2]`` that keeps neighbours together."""
    try:
        import tsnecuda
    except (ImportError, OSError):
        from openTSNE import TSNE

        return np.asarray(
            TSNE(
                perplexity=PERPLEXITY,
                learning_rate=LEARNING_RATE,
                n_iter=iterations,
                early_exaggeration_iter=iterations // 10,
                random_state=seed,
                n_jobs=1,
            ).fit(points)
        )
    reducer = tsnecuda.TSNE(
        n_components=2, perplexity=PERPLEXITY, learning_rate=LEARNING_RATE, n_iter=iterations, random_seed=seed
    )
    return reducer.fit_transform(points)


def silhouette(points: np.ndarray, label: np.ndarray) -> float:
    """Mean silhouette of the classes, -1 to 1."""
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(points, label))


def draw(results: list[dict[str, Any]]) -> bytes:
    """The maps of `embed` side by side, as a PNG."""
    figure = canvas(4.2 * len(results), 4.8)
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        x, y, label = (np.asarray(result["curves"][name]) for name in ("x", "y", "label"))
        names = CLASS_NAMES.get(result["dataset"], ())
        for number in range(int(label.max()) + 1):
            mine = label == number
            name = names[number] if number < len(names) else f"class {number}"
            axes.scatter(x[mine], y[mine], s=3, color=f"C{number}", label=name, linewidths=0)
        score = result["metrics"]["silhouette"]
        axes.set_title(f"{TITLES.get(result['method'], label_of(result['method']))}\nsilhouette {score:.2f}")
        axes.set(xticks=[], yticks=[], xlim=span(x), ylim=span(y))
        axes.spines[:].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, markerscale=4, frameon=False)
    return png(figure)


def span(values: np.ndarray) -> tuple[float, float]:
    """The part of an axis that is shown: what holds 99 % of the points, and a margin; a few far ones squeeze no map."""
    low, high = np.percentile(values, (0.5, 99.5))
    margin = 0.08 * (high - low) or 1.0  # a map that is one point has an axis, too
    return float(low - margin), float(high + margin)


def main(config: Config) -> None:
    """Run the command: three trainings, three maps, one picture."""
    import json

    common = {name: getattr(config, name) for name in ("dataset", "seed", "data_dir", "device")}
    common |= {} if config.epochs is None else {"epochs": config.epochs}
    results = []
    for number, (method, title) in enumerate(TITLES.items(), start=1):
        print(f"{number} of {len(TITLES)}: training by {title}, then its map ...", file=sys.stderr, flush=True)
        results.append(embed(make(train.Config, method=method, **common), config.iterations))
    write_whole(config.out, draw(results))
    for result in results:
        print(json.dumps({key: value for key, value in result.items() if key != "curves"}))
    print(f"wrote {config.out}")


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
