"""Rules whose feedback learns: what a pass shows of each point, and how the feedback moves at the end of it.

    dkp   F <- F - lr (eᵀ h + decay F)             direct Kolen-Pollack: Webster, Choi, Ahn 2021, OpenReview zgGmAx9ZcY
    ebd   F <- memory F + (1 - memory) eᵀ h        error broadcast and decorrelation: Erdogan, Pehlevan, Erdogan 2025

The two pull F to opposite sides: `dkp` is the gradient that a matrix above the point would get, `ebd` the correlation
that it wants to be rid of. Under a loss averaged over B samples e carries 1/B, and eᵀ h is a mean over them.

Here h ``[R, d]`` is what passes a point (after the activation), e ``[R, c]`` the error that reaches each of its rows,
and F ``[c, d]`` the point's own columns of the feedback, which are at least float32 whatever the model computes in.

A rule may also look at what backpropagation would do: every so many passes at the exact gradient of every point, or at
how the output answers to noise at the points (`Learning.exact_every`, `Learning.probe_every`; `tinydfa.looks`).

A rule holds options only. Its feedback and memory belong to the attachment and are in its `state_dict`. A backward
pass adds to the moments of every point, and every `every`-th one ends by averaging them over the processes and
changing the feedback; so all of them keep the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Generator, Tensor

from tinydfa.rules.base import Broadcast
from tinydfa.rules.options import positive, share, whole

Memory = dict[str, dict[str, Tensor]]  # what a rule keeps of every point, by its name


class Probed(NamedTuple):
    """One point in one pass with noise. The mean over rows of ``change.T @ noise`` estimates an ideal F.

    In a look without a pass with noise, `noise` is 0 and `change` the output itself, spread over the rows of a
    sample as the error is.
    """

    name: str
    noise: Tensor  # what was added to what passed, divided by the probe's size, [R, d]
    change: Tensor  # of the output for each of its rows, divided by that size, [R, c]; sqrt(k) times that of its sample
    value: Tensor  # what passed the point, [R, d]
    feedback: Tensor | None = None  # the point's own columns as they are, [c, d]


class Seen(NamedTuple):
    """One point in one backward pass, in the type of the feedback, with any loss scale undone."""

    name: str
    error: Tensor  # what reaches each of its rows before the feedback, [R, c]; the row's signal is error @ F
    value: Tensor  # what passed the point, [R, d]
    gradient: Tensor | None = (
        None  # in an exact pass: that of the loss at the point, [R, d], which error @ F stands for
    )
    probed: tuple[Probed, ...] = ()  # for a rule that awaits the error: what this pass's noise showed, row by row


@dataclass(frozen=True)
class Probe:
    """How a model is probed: once as it is, and `times` with noise at all points at once.

    Args:
        size: Standard deviation of the noise, which is normal. The model's type must resolve its effect.
        times: Passes with noise, each with its own. 0: the model runs as it is alone, see `Probed`.
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
    feels_loss_scale = True
    every: ClassVar[int] = 1
    """Backward passes between two changes of the feedback. Moments add up meanwhile: with as many parts as a batch is
    accumulated from, the feedback moves as it would for the whole batch. 0: ordinary passes are not shown."""
    exact_every: ClassVar[int] = 0
    """The first and every so-manieth training pass is not cut: it trains by its exact gradient, and `moments` is given
    it. At its end the feedback changes. 0: none."""
    adapts: ClassVar[bool] = False
    """`exact_every` is the time from the first exact pass to the second alone; after that it is what `period` says."""
    probe_every: ClassVar[int] = 0
    """At the end of the first and of every so-manieth training pass the model is probed, see `probe_moments`. Then the
    feedback changes, before the backward pass. 0: never."""
    probe: ClassVar[Probe] = Probe()
    """How."""
    awaits_error: ClassVar[bool] = False
    """A probe is shown to `moments`, as ``seen.probed`` beside the error of the same pass, and not to `probe_moments`.
    Other passes are not shown. `every` is then 1."""
    rows: ClassVar[int] = 0
    """Most rows of a point that an exact pass shows, drawn anew in each. 0: all."""

    @property
    def looks(self) -> bool:  # type: ignore[override]
        return self.exact_every > 0 or self.probe_every > 0

    def is_exact(self, number: int) -> bool:
        """Whether training pass `number`, from 0, is not cut."""
        return due(self.exact_every, number)

    def probes(self, number: int) -> bool:
        """Whether the model is probed at the end of training pass `number`, from 0."""
        return due(self.probe_every, number)

    def period(self, before: int, memory: Memory) -> int:
        """Of a rule that adapts: training passes from the exact pass that has just been shown to the next one.

        Args:
            before: How many it would be as things were.
            memory: What the rule keeps of every point, by name; `update` has been called for all of them.
        """
        return before

    def check_width(self, outputs: int) -> None:
        """Refuse a width of the error that the rule cannot deal with, before anything is learned."""

    def begins(self, width: int, generator: Generator) -> dict[str, Tensor]:
        """What the memory of a point of that width begins with."""
        return {}

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        """What this pass adds to the moments of a point. They must add up over passes, and average over processes.

        An empty dictionary shows nothing, and the feedback of the point is left as it is.
        """
        raise lacks(self, "moments(seen)", "is shown training passes")

    def probe_moments(self, probed: Probed) -> dict[str, Tensor]:
        """As `moments`, of a pass with noise at the points."""
        raise lacks(self, "probe_moments(probed)", "probes the model and does not await the error")

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        """Change `feedback` ``[c, d]`` in place. `memory` keeps what the rule puts there until the next time."""
        raise lacks(self, "update(feedback, moments, memory)", "learns")


def lacks(rule: Learning, method: str, why: str, base: str = "Learning") -> NotImplementedError:
    """What a rule of a user's must define and does not, and where to read on."""
    return NotImplementedError(f"{rule.name} {why}, and its class has no {method}: see tinydfa.rules.{base}.")


def due(every: int, number: int) -> bool:
    """Whether something that is done in the first and in every `every`-th pass is done in pass `number`, from 0."""
    return every > 0 and number % every == 0


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

    def __post_init__(self) -> None:
        positive(self, "lr", self.lr)
        share(self, "decay", self.decay)
        whole(self, "every", self.every, least=1)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        return {"gradient": seen.error.T @ seen.value}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        feedback.sub_(self.lr * (moments["gradient"] + self.decay * feedback))


@dataclass(frozen=True, repr=False)
class EBD(Learning):
    """Error broadcast and decorrelation: F is the running correlation of errors and values, ``[c, d]``.

    The published rule has terms for entropy, power and sparsity of the values as well; here is the broadcast alone.

    Args:
        memory: What is left of F at a step. The published one is so near to 1 that F keeps its beginning for very long.
        every: Backward passes between two steps, see `Learning`.
    """

    name = "ebd"
    label = "EBD"
    colour = "#661100"
    source = "Erdogan, Pehlevan and Erdogan 2025, error broadcast and decorrelation"

    memory: float = 0.999999
    every: int = 1  # type: ignore[misc]

    def __post_init__(self) -> None:
        share(self, "memory", self.memory)
        whole(self, "every", self.every, least=1)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        return {"correlation": seen.error.T @ seen.value}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        feedback.lerp_(moments["correlation"], 1.0 - self.memory)
