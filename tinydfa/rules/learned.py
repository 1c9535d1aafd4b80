"""Rules whose feedback learns: what a pass shows of each point, and how the feedback moves at the end of it.

    dkp   F <- F - lr (eᵀ h + decay F)      direct Kolen-Pollack: Webster, Choi, Ahn 2021, OpenReview zgGmAx9ZcY

Here h ``[R, d]`` is what passes a point (after the activation), e ``[R, c]`` the error that reaches each of its rows,
and F ``[c, d]`` the point's own columns of the feedback, which are float32 whatever the model computes in.

A rule may also look at what backpropagation would do: every so many passes at the exact gradient of every point, or at
how the output answers to noise at the points (`Learning.exact_every`, `Learning.probe_every`; `tinydfa.looks`).

A rule holds options only. Its feedback and memory belong to the attachment and are in its `state_dict`. A backward
pass adds to the moments of every point, and every `every`-th one ends by averaging them over the processes and
changing the feedback; so all of them keep the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from tinydfa.rules.base import Broadcast


class Seen(NamedTuple):
    """One point in one backward pass, in float32, with any loss scale undone."""

    name: str
    error: Tensor  # what reaches each of its rows before the feedback, [R, c]; the row's signal is error @ F
    value: Tensor  # what passed the point, [R, d]
    gradient: Tensor | None = (
        None  # in an exact pass: that of the loss at the point, [R, d], which error @ F stands for
    )


class Probed(NamedTuple):
    """One point in one pass with noise, in float32. The mean over rows of ``change.T @ noise`` estimates an ideal F."""

    name: str
    noise: Tensor  # what was added to what passed, divided by the probe's size, [R, d]
    change: Tensor  # of the output for each of its rows, divided by that size, [R, c]; sqrt(k) times that of its sample
    value: Tensor  # what passed the point, [R, d]


@dataclass(frozen=True)
class Probe:
    """How a model is probed: once as it is, and `times` with noise at all points at once.

    Args:
        size: Standard deviation of the noise, which is normal. The model's type must resolve its effect.
        times: Passes with noise, each with its own.
        dropout: As in training, the same in all of these passes. False: modules other than batch norm, which always
            is as in training, run in evaluation mode.
    """

    size: float = 1e-2
    times: int = 1
    dropout: bool = False


class Learning(Broadcast):
    """A broadcasting rule whose feedback changes. Every point has columns of its own, and no further scale."""

    learns = True
    carries_loss_scale = True
    every: ClassVar[int] = 1
    """Backward passes between two changes of the feedback. Moments add up meanwhile: with as many parts as a batch is
    accumulated from, the feedback moves as it would for the whole batch. 0: ordinary passes are not shown."""
    exact_every: ClassVar[int] = 0
    """The first and every so-manieth training pass is not cut: it trains by its exact gradient, and `moments` is given
    it. At its end the feedback changes. 0: none."""
    probe_every: ClassVar[int] = 0
    """At the end of the first and of every so-manieth training pass the model is probed, see `probe_moments`. Then the
    feedback changes, before the backward pass. 0: never."""
    probe: ClassVar[Probe] = Probe()
    """How."""

    @property
    def looks(self) -> bool:  # type: ignore[override]
        return self.exact_every > 0 or self.probe_every > 0

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        """What this pass adds to the moments of a point. They must add up over passes, and average over processes."""
        raise NotImplementedError

    def probe_moments(self, probed: Probed) -> dict[str, Tensor]:
        """As `moments`, of a pass with noise at the points."""
        raise NotImplementedError

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        """Change `feedback` ``[c, d]`` in place. `memory` keeps what the rule puts there until the next time."""
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class DKP(Learning):
    """Direct Kolen-Pollack: F follows the gradient that the weights above its point would get, were they one matrix.

    Args:
        lr: Learning rate of the feedback.
        decay: Its weight decay; with the same decay of the weights both forget where they began.
        every: Backward passes between two steps, see `Learning`.
    """

    name = "dkp"
    label = "DKP"
    colour = "#117733"
    source = "Webster, Choi and Ahn 2021, OpenReview zgGmAx9ZcY"

    lr: float = 0.01
    decay: float = 1e-4
    every: int = 1  # type: ignore[misc]

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        return {"gradient": seen.error.T @ seen.value}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        feedback.sub_(self.lr * (moments["gradient"] + self.decay * feedback))
