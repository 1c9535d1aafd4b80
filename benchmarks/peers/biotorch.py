"""biotorch's FA and DFA beside tinydfa's, on a perceptron and a small convolutional network.

    python -m benchmarks.peers.install biotorch
    PYTHONPATH=.:.peers/biotorch python -m benchmarks.peers.biotorch

Both sides convert the same plain model and train it by SGD on one batch. A layer's signal arrives at the input of every
layer but the first: tinydfa's feedback points are the modules whose output that is. biotorch evaluates the loss twice a
step, once to broadcast its gradient, as its examples do, and backpropagates through every layer before it replaces the
result. `bp` is the model as it is.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contest import Contest
from benchmarks.models import mlp, sgd_step
from benchmarks.peers import process
from benchmarks.step_time import mlp_limit
from benchmarks.timing import Step
from harness.methods import rule_of
from tinydfa import Method, attach

CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model whose every layer but the first reads the output of one of `points`."""

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    points: tuple[str, ...]
    limits: dict[str, float]


def perceptron(quick: bool) -> Case:
    """Three hidden layers."""
    widths = (20, 16, 16, CLASSES) if quick else (784, 1000, 1000, 1000, CLASSES)
    batch = 16 if quick else 128
    return Case(
        name=f"MLP {'-'.join(map(str, widths))}, batch {batch}",
        build=lambda: mlp(*widths),
        inputs=(batch, widths[0]),
        points=tuple(str(2 * hidden + 1) for hidden in range(len(widths) - 2)),
        limits={"tinydfa, dfa": mlp_limit(widths)},
    )


def convolutions(quick: bool) -> Case:
    """Two convolutions with pooling, two fully connected layers."""
    first, second, hidden, batch = (4, 4, 16, 4) if quick else (32, 64, 256, 64)

    def build() -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(3, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(64 * second, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES)),
        )

    return Case(
        name=f"CNN {first}-{second}-{hidden}-{CLASSES}, batch {batch} of 32 x 32",
        build=build,
        inputs=(batch, 3, 32, 32),
        points=("2", "6", "8"),
        limits={"tinydfa, dfa": convolutions_limit(first, second, hidden)},
    )


def convolutions_limit(first: int, second: int, hidden: int) -> float:
    """`benchmarks.step_time.mlp_limit` for `convolutions`: the products of an image by DFA over those by BP."""
    layers = [
        32 * 32 * first * 25 * 3,
        16 * 16 * second * 25 * first,
        8 * 8 * second * hidden,
        hidden * CLASSES,
    ]
    widest = max(16 * 16 * first, 8 * 8 * second, hidden)
    return (2 * sum(layers) + CLASSES * widest) / (3 * sum(layers) - layers[0])


def our_step(case: Case, method: str, inputs: Tensor, targets: Tensor) -> Step:
    """A step by tinydfa; by backpropagation, of the model as it is."""
    torch.manual_seed(0)
    model = case.build()
    if method is not Method.BP:
        attach(model, method, points=case.points if rule_of(method).cuts else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return lambda: sgd_step(model, optimizer, inputs, targets)


def their_step(case: Case, mode: str, inputs: Tensor, targets: Tensor) -> Step:
    """A step by biotorch, in the order of its examples: forward with the targets, loss, backward."""
    from biotorch.module.biomodule import BioModule

    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):  # it lists the layers that it converted
        model = BioModule(case.build(), mode=mode, output_dim=CLASSES)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        output = model(inputs, targets, F.cross_entropy) if mode == "dfa" else model(inputs)
        F.cross_entropy(output, targets).backward()
        optimizer.step()

    return step


def contests(quick: bool) -> Iterator[Contest]:
    """Both models."""
    for case in (perceptron(quick), convolutions(quick)):
        inputs, targets = torch.randn(case.inputs), torch.randint(0, CLASSES, case.inputs[:1])
        steps = {"bp": our_step(case, Method.BP, inputs, targets)}
        for method in (Method.FA, Method.DFA):
            steps[f"biotorch, {method}"] = their_step(case, method.value, inputs, targets)
            steps[f"tinydfa, {method}"] = our_step(case, method, inputs, targets)
        peers = {f"tinydfa, {mode}": f"biotorch, {mode}" for mode in ("fa", "dfa")}
        yield Contest(
            task="core", model=case.name, steps=steps, peers=peers, limits=case.limits, repeats=1 if quick else 5
        )


if __name__ == "__main__":
    from harness import cli

    cli.run(process.Config, lambda config: process.main(contests, config))
