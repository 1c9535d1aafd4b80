"""Rules whose signal is known at the point: from what passes it and the targets, before the output is known.

    les    (1 - a) cross-entropy(h Fᵀ, y) + a |cos(h S) - cos(y)|²/R²    local errors: Nokland and Eidnes 2019

Here h ``[R, d]`` is what passes a point, y its rows' targets, one-hot; F ``[c, d]`` a read-out of the point and S
``[d, k]`` a map of it, which learn; cos the ``[R, R]`` cosines between rows, each less its own mean; a the weight of
the second loss. A point receives the gradient at h and no more, so that no layer learns for another one.

A loss here is a mean over those R rows that have a target, in all processes together. Of a sample with k rows each
has the sample's target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from tinydfa.errors import DFAError
from tinydfa.rules.imitating import adam
from tinydfa.rules.learned import Learning, Seen, lacks
from tinydfa.rules.options import positive, share, whole
from tinydfa.signals import one_hot_rows

SHORTEST = 1e-8  # a row of which less is left without its mean has no direction


class Here(NamedTuple):
    """One point in one pass, in the type of the feedback."""

    name: str
    value: Tensor  # what passed it, [R, d]
    target: Tensor  # the classes of its rows as shares, [R, c] (two columns where c is 1); 0 where there is no target
    feedback: Tensor  # its own columns, [c, d]
    memory: dict[str, Tensor]  # what the rule keeps of it


class Local(Learning):
    """A rule that makes the signal of a point at the point: override `at_point`, and `update` if anything learns."""

    local = True
    needs_target = True
    needs_error = False
    carries_loss_scale = False
    feels_loss_scale = False
    alone: ClassVar[bool] = True
    """What a row receives, times the number of rows, does not depend on the others."""

    def at_point(self, here: Here) -> tuple[Tensor, dict[str, Tensor]]:
        """The signal ``[R, d]``, the gradient of a mean over rows; and the moments, as `Learning.moments` has them."""
        raise lacks(self, "at_point(here)", "makes its signals at the points", "Local")

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        """The classes of the samples as shares, ``[B, c]``; of one output ``[B, 2]``, the other class first."""
        assert target is not None
        rows = one_hot_rows(target, error)
        return rows if error.shape[1] > 1 else torch.cat([1 - rows, rows], dim=1)

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        return {}  # an exact pass trains, and that is all


@dataclass(frozen=True, repr=False)
class LES(Local):
    """Local errors: every point has a read-out of its own and learns by its loss. Without similarity, Mono-Forward.

    F begins at random as that of DFA does, and not at 0, with which nothing would be sent in the first step. It has no
    bias and sees what passes the point unpooled. F and S are trained by Adam. The published S is square; this one has
    at most `width` columns, so that a feature map of thousands of numbers can have one too.

    Args:
        lr: Learning rate of F and S.
        similarity: Weight of the similarity loss, below 1; the published "predsim" has 0.99, "pred" 0. It compares the
            samples of a batch, so that over several processes it is another loss.
        width: Columns of S, at least 2; a narrower point has as many as it is wide.
        every: Backward passes between two steps of F and S, see `Learning`.

    Raises:
        OptionError: an option makes no sense.
        DFAError: in a backward pass, a state that was saved without similarity, or with another width, goes on with it.
    """

    name = "les"
    label = "LES"
    colour = "#CC6677"
    explained = "Every layer learns to be read: a loss of its own, between the targets and a linear map of it."
    source = "Nokland and Eidnes 2019, arXiv 1901.06656; without similarity Gong, Li and Abdulla 2025, arXiv 2501.09238"

    lr: float = 1e-3
    similarity: float = 0.0
    width: int = 128
    every: int = 1  # type: ignore[misc]

    def __post_init__(self) -> None:
        positive(self, "lr", self.lr)
        share(self, "similarity", self.similarity)
        whole(self, "width", self.width, least=2)
        whole(self, "every", self.every, least=1)

    @property
    def alone(self) -> bool:  # type: ignore[override]
        return self.similarity == 0

    def begins(self, width: int, generator: Generator) -> dict[str, Tensor]:
        if self.similarity == 0:
            return {}
        drawn = torch.rand(width, min(width, self.width), generator=generator)
        return {"map": (2 * drawn - 1) / width**0.5}

    def at_point(self, here: Here) -> tuple[Tensor, dict[str, Tensor]]:
        there = (here.target.sum(dim=1, keepdim=True) > 0).to(here.value.dtype)
        rows = there.sum()
        missed = missed_by(here.value @ here.feedback.T, here.target) * there
        weight = 1 - self.similarity
        signal = weight * (missed @ here.feedback) / rows.clamp_min(1)
        moments = {"rows": rows, "gradient": weight * (missed.T @ here.value)}
        if self.similarity > 0:
            through = self._map_of(here)
            toward = self.similarity * unlike(here.value @ through, here.target, there)
            signal = signal + toward @ through.T
            moments["map"] = rows * (here.value.T @ toward)
        return signal, moments

    def _map_of(self, here: Here) -> Tensor:
        """S, ``[d, k]``."""
        found = here.memory.get("map")
        expected = (here.value.shape[1], min(here.value.shape[1], self.width))
        if found is None or found.shape != expected:
            was = "without similarity" if found is None else f"with width={found.shape[1]}"
            raise DFAError(
                f"{self!r} maps feedback point {here.name!r} to {expected[1]} numbers, and what it has learned so far "
                f"was learned {was}. Go on with the options of then, or attach anew."
            )
        return found.to(here.value)

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        rows = moments["rows"]
        if rows == 0:
            return
        feedback.sub_(self.lr * adam(moments["gradient"] / rows, memory))
        if "map" in moments:
            memory["map"] = memory["map"] - self.lr * adam(moments["map"] / rows, memory, of="map ")


def missed_by(scores: Tensor, target: Tensor) -> Tensor:
    """The gradient of the cross-entropy of every row at its scores, ``[R, c]``; of one score, that of the logistic."""
    outputs = scores.shape[1]
    if outputs == 1:
        scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
    return (scores.softmax(dim=1) - target)[:, -outputs:]


def unlike(mapped: Tensor, target: Tensor, there: Tensor) -> Tensor:
    """The gradient at `mapped` of the mean square between its rows' cosines and those of the targets.

    With X and Y their directions the mean is ``|X Xᵀ - Y Yᵀ|²/R²``, and its gradient ``4 (X XᵀX - Y YᵀX)/R²`` at X: no
    matrix has R x R entries.

    Args:
        mapped: h S, ``[R, k]``.
        target: ``[R, c]``.
        there: 1 for the rows that count, else 0, ``[R, 1]``.
    """
    x, length = directions(mapped)
    x, y = x * there, directions(target)[0] * there
    at_x = 4 * (x @ (x.T @ x) - y @ (y.T @ x)) / there.sum().clamp_min(1) ** 2
    at_mapped = (at_x - x * (x * at_x).sum(dim=1, keepdim=True)) / length  # its rows, sums of rows of X, have no mean
    return torch.where(length > SHORTEST, at_mapped, 0.0)


def directions(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows less their own means, at length 1 (0 where nothing is left); and the lengths they had, ``[R, 1]``."""
    centred = rows - rows.mean(dim=1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True).clamp_min(SHORTEST)
    return torch.where(length > SHORTEST, centred / length, 0.0), length
