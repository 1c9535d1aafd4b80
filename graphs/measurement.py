"""How far a method's hidden gradients point along backpropagation's, while a node classifier trains.

Dropout is off, and the loss is taken over all nodes of the graph, as in the published code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from graphs.data.graph import Graph
from graphs.models.networks import DNA
from harness.errors import UserError
from harness.methods import rule_of
from tinydfa import Attachment, measure_alignment

TINY = 1e-8  # the release's "sensitivity"


class Alignment:
    """The alignment over a training, measured every few epochs and after the last.

    Args:
        model: What is trained.
        graph: What it is trained on.
        attachment: The model's.
        every: Epochs between measurements; None: nothing is measured, and everything here is empty.
        last: The last epoch.

    `curves` holds "epoch", and for every feedback point the mean cosine over nodes under the point's name and its
    standard deviation under the name with "_std".
    """

    def __init__(self, model: nn.Module, graph: Graph, attachment: Attachment, *, every: int | None, last: int) -> None:
        self.model, self.graph, self.attachment, self.every, self.last = model, graph, attachment, every, last
        self.points = list(attachment.points)
        self.curves: dict[str, list[float]] = {}

    def after(self, epoch: int) -> dict[str, float]:
        """The cosines after `epoch`; empty if none are due."""
        if self.every is None or (epoch % self.every and epoch != self.last):
            return {}
        found = point_alignment(self.model, self.graph, self.points)
        for name, value in (found | {"epoch": epoch}).items():
            self.curves.setdefault(name, []).append(value)
        return found

    def metrics(self) -> dict[str, float]:
        """The mean cosine over points at the last measurement ("alignment") and at the first ("alignment_start"), its
        spread over nodes ("alignment_std"), that of the deepest point ("alignment_deepest"), and the same as the code
        release measures it (see `released_alignment`). Empty if nothing was measured.
        """
        if not self.curves:
            return {}
        released = released_alignment(self.model, self.attachment, self.graph)
        return {
            "alignment": mean(self.curves[name][-1] for name in self.points),
            "alignment_std": mean(self.curves[f"{name}_std"][-1] for name in self.points),
            "alignment_deepest": self.curves[self.points[-1]][-1],
            "alignment_released": released.mean().item(),
            "alignment_released_std": released.std().item(),
            "alignment_start": mean(self.curves[name][0] for name in self.points),
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this, by name."""
        return {} if self.every is None else {"alignment": self}

    def state_dict(self) -> dict[str, Any]:
        """The curves so far."""
        return dict(self.curves)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, without what was measured because an epoch was the last, and is not now."""
        epochs = state.get("epoch", [])
        kept = [place for place, epoch in enumerate(epochs) if epoch == self.last or not epoch % (self.every or 1)]
        self.curves = {name: [values[place] for place in kept] for name, values in state.items()}


def check_alignment(every: int, method: str) -> None:
    """Raise `UserError` for what cannot be measured."""
    if every < 1:
        raise UserError(f"--alignment-every {every}: give at least 1.")
    if rule_of(method).needs_target:
        reason = "reads the classes of labelled nodes, and the alignment is of the loss over all nodes"
        raise UserError(f"--method {method} {reason}. Use dfa or sdfa.")


def check_classes(graph: Graph) -> None:
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


def mean(values: Iterable[float]) -> float:
    """The mean of some numbers."""
    values = list(values)
    return sum(values) / len(values)
