"""How far DFA's hidden gradients point along backpropagation's while a node classifier trains (Table A.2).

    python -m graphs.alignment --model gcn --dataset cora

Every ten epochs, with dropout off and the loss taken over all nodes of the graph, as in the published code. Reported
is the mean cosine over the model's feedback points at the last measurement; the curves hold every point's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from graphs import train
from graphs.graph import Graph
from graphs.models import DNA, build_model
from graphs.presets import PRESETS, Preset, find_preset
from harness.config import Unused
from harness.device import pick_device
from harness.errors import UserError
from harness.methods import rule_of, slug
from harness.run import NullRun, Run, check_loss
from harness.seeds import seed_everything
from tinydfa import Attachment, measure_alignment

EVERY = 10  # epochs
TINY = 1e-8  # the release's "sensitivity"


@dataclass(frozen=True, kw_only=True)
class Config(train.Config):
    """Train a node classifier and measure the alignment of its gradients with backpropagation's."""

    resume: bool = False
    """Start an interrupted run over in its folder."""
    checkpoint_every: Unused = 1  # a run is short: it has no checkpoints

    def resolve(self) -> Preset:
        """The preset that these arguments mean; DNAConv has its own here."""
        if self.method is not None and rule_of(self.method).needs_target:
            reason = "projects the classes of labelled nodes, and the alignment is of the loss over all nodes"
            raise UserError(f"--method {self.method} {reason}. Use dfa or sdfa.")
        if self.model == "dna" and self.preset is None:
            preset = replace(find_preset(model="dna", method=self.method), lr=PRESETS["dna_alignment"].lr)
            return preset if self.epochs is None else replace(preset, epochs=self.epochs)
        return super().resolve()


def measure(config: Config, run: Run | None = None, graph: Graph | None = None) -> dict[str, Any]:
    """Train as `config` says, and measure; for the arguments see `graphs.train.train`.

    Returns:
        The result; its metrics are the mean cosine over points at the last measurement ("alignment"), its spread over
        nodes ("alignment_std"), the mean cosine at the first ("alignment_start"), that at the deepest hidden layer
        ("alignment_deepest"), the same as the code release measures it (see `released_alignment`), and the test
        accuracy. The curves
        hold "epoch", and the mean and spread of every point under its name and its name with "_std".
    """
    preset = config.resolve()
    device = pick_device(config.device)
    graph = (graph or train.load_preset_graph(preset, config)).to(device)
    check(graph)
    run = run or NullRun("graphs", train.resolved(config, preset))
    seed_everything(config.seed)
    model = build_model(preset, graph.features, graph.classes).to(device)
    attachment = train.attach_method(model, preset, config.seed)
    optimizer = train.make_optimizer(model, preset)
    history = train.History()
    curves: dict[str, list[float]] = {}
    for epoch in range(1, preset.epochs + 1):
        loss = train.train_epoch(model, graph, optimizer)
        check_loss(loss, epoch)
        history.add(loss, *train.evaluate(model, graph))
        if epoch % EVERY == 0 or epoch == preset.epochs:
            found = point_alignment(model, graph, list(attachment.points))
            for name, value in (found | {"epoch": epoch}).items():
                curves.setdefault(name, []).append(value)
            run.log(epoch, train_loss=loss, **found)

    points = list(attachment.points)
    released = released_alignment(model, attachment, graph)
    metrics = {
        "alignment": mean(curves[name][-1] for name in points),
        "alignment_std": mean(curves[f"{name}_std"][-1] for name in points),
        "alignment_deepest": curves[points[-1]][-1],
        "alignment_released": released.mean().item(),
        "alignment_released_std": released.std().item(),
        "alignment_start": mean(curves[name][0] for name in points),
        "test_accuracy": history.metrics()["test_accuracy"],
    }
    return run.finish(model=preset.model, metrics=metrics, curves=curves, device=device)


def check(graph: Graph) -> None:
    """Raise `UserError` for a graph with nodes that have no class: the loss is over all nodes."""
    if bool((graph.y < 0).any()):
        node = int((graph.y < 0).int().argmax())
        raise UserError(f"{graph.name}: node {node} has no class, and the alignment is of the loss over all nodes.")


def point_alignment(model: nn.Module, graph: Graph, points: list[str]) -> dict[str, float]:
    """Mean cosine over nodes of every point, and its spread under the name with "_std"; loss over all nodes."""

    def loss_fn(model: nn.Module) -> torch.Tensor:
        return F.cross_entropy(model(graph), graph.y)

    model.eval()
    found = measure_alignment(model, loss_fn)
    return {name: found[name].mean for name in points} | {f"{name}_std": found[name].std for name in points}


def released_alignment(model: nn.Module, attachment: Attachment, graph: Graph) -> torch.Tensor:
    """Cosines of the nodes at the deepest hidden convolution as the code release takes them, ``[N]``.

    They differ from `point_alignment` in three ways. The gradients are those at the convolution's output, below its
    activation. Backpropagation's is taken with dropout on, because the release never sets its second model to
    evaluation. Numbers of 1e-8 and less count as zero, and a node where nothing is left counts as aligned.
    """

    dfa = convolution_gradient(model.eval(), graph)
    with attachment.backprop():
        bp = convolution_gradient(model.train(), graph)
    nothing = dfa.sum(dim=1) + bp.sum(dim=1) == 0
    return torch.where(nothing, 1.0, F.cosine_similarity(bp, dfa, dim=1))


def convolution_gradient(model: nn.Module, graph: Graph) -> torch.Tensor:
    """Gradient of the loss over all nodes at the output of the last convolution below a point, in units of `TINY`."""

    def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        kept.append(output)

    kept: list[torch.Tensor] = []
    deepest = model.convs[-1] if isinstance(model, DNA) else model.get_submodule("conv1")
    handle = deepest.register_forward_hook(keep)
    try:
        loss = F.cross_entropy(model(graph), graph.y)
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(loss, kept)
    return torch.where(gradient.abs() <= TINY, 0, gradient) / TINY


def mean(values: Any) -> float:
    """The mean of some numbers."""
    values = list(values)
    return sum(values) / len(values)


def main(config: Config) -> None:
    """Run the command. A run is short, so it starts over if interrupted."""
    preset = config.resolve()
    name = f"alignment_{preset.model}_{slug(preset.method)}-{config.data_name}-{config.seed}"
    settings = train.resolved(config, preset) | {"device": config.device, "data_dir": config.data_dir}
    graph = train.load_preset_graph(preset, config)
    check(graph)
    pick_device(config.device)
    with Run("graphs", name, settings, config.out, config.resume) as run:
        run.restore()
        measure(config, run, graph)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
