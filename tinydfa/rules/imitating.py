"""Feedback that learns to read the network's own output off each of its layers.

    las    F <- F - lr ∇ |h Fᵀ - y|²/(R c)        local alignment support: Yang, Lee and Park 2024

Here h ``[R, d]`` is what passes a point, F ``[c, d]``, and y ``[R, c]`` the output for each of its rows. Of a sample
with k rows each reads 1/sqrt(k) of it, as each receives of the error. Were all that lies above the point linear, the F
that imitates it would bring backpropagation's own signal. Neither a loss nor an error is looked at, so that F goes on
learning where the error is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tinydfa.rules.learned import Learning, Probe, Probed, Seen
from tinydfa.rules.options import positive, whole

BETAS = (0.9, 0.999)  # of Adam
SMALLEST = 1e-8


@dataclass(frozen=True, repr=False)
class LAS(Learning):
    """Local alignment support: F is a linear read-out of the layer, trained by Adam to imitate the output.

    A look is one forward pass without a graph, before the backward pass. The published F begins as the product of the
    weights above the point; this one begins at random, as that of DFA does.

    Args:
        lr: Learning rate of the feedback.
        probe_every: F takes a step in the first and in every so-manieth training pass.
        dropout: Whether the look drops out as training does; see `Probe`.
        exact_every: The first and every so-manieth training pass is one of backpropagation ("calibration"). 0: none.

    Raises:
        OptionError: an option makes no sense.
    """

    name = "las"
    label = "LAS"
    colour = "#DDCC77"
    explained = "F is a linear map from a layer to the output, trained to imitate the network that lies between them."
    source = "Yang, Lee and Park 2024, IEEE Access 12, pp. 81388-81397"
    feels_loss_scale = False

    every: ClassVar[int] = 0
    lr: float = 1e-3
    probe_every: int = 1  # type: ignore[misc]
    dropout: bool = False
    exact_every: int = 0  # type: ignore[misc]

    def __post_init__(self) -> None:
        positive(self, "lr", self.lr)
        whole(self, "probe_every", self.probe_every, least=1)
        whole(self, "exact_every", self.exact_every, least=0)

    @property
    def probe(self) -> Probe:  # type: ignore[override]
        return Probe(times=0, dropout=self.dropout)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        return {}  # an exact pass trains, and that is all

    def probe_moments(self, probed: Probed) -> dict[str, Tensor]:
        assert probed.feedback is not None
        output, value = probed.change, probed.value
        missed = value @ probed.feedback.T - output
        rows = value.new_tensor(len(value))
        return {"rows": rows, "gradient": 2.0 / output.shape[1] * missed.T @ value}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        if moments["rows"] > 0:
            feedback.sub_(self.lr * adam(moments["gradient"] / moments["rows"], memory))


def adam(gradient: Tensor, memory: dict[str, Tensor], of: str = "") -> Tensor:
    """The direction of Adam's next step; `memory` keeps its means and how many steps it took, under names with `of`."""
    zero = gradient.new_zeros(())
    steps = memory[f"{of}steps"] = memory.get(f"{of}steps", zero) + 1
    mean = memory[f"{of}mean"] = memory.get(f"{of}mean", zero) * BETAS[0] + (1 - BETAS[0]) * gradient
    square = memory[f"{of}square"] = memory.get(f"{of}square", zero) * BETAS[1] + (1 - BETAS[1]) * gradient.square()
    return mean / (1 - BETAS[0] ** steps) / ((square / (1 - BETAS[1] ** steps)).sqrt() + SMALLEST)
