"""The head of the 2020 package: its arguments, translated into those of `tinydfa.Head`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

import torch
from torch import nn

from tinydfa.feedback.drawn import Feedback, Scaling
from tinydfa.head import Head
from tinydfa.passes.forward_pass import Settings
from tinydfa.points import DFALayer


class FeedbackPointsHandling(Enum):
    """How the 2020 package kept points between a forward and a backward pass.

    Every forward pass now has an autograd node of its own, which knows its own points, so the three give the same
    gradients: several forward passes before one backward need no mode. The names stay for scripts that pass them.
    """

    LAST = "LAST"
    MINIBATCH = "MINIBATCH"
    REDUCE = "REDUCE"


class DFA(Head):
    """The head of direct feedback alignment with the interface of 2020.

    As in that release, a point right below the head receives the projection of the error like any other; `tinydfa.Head`
    passes the error on to it as it is.

    Args:
        dfa_layers: The feedback points it feeds, in a list or an `nn.ModuleList`.
        normalization: Divide the projection by sqrt(D). False: leave it as it is, whatever the feedback's scaling.
        rp_device: Device of the projection; None: the output's.
        no_training: Feed nothing to the points ("shallow": only the part above the last point trains). May be
            changed at any time.
        feedback_points_handling: Kept for 2020 scripts, see `FeedbackPointsHandling`.
        batch_dims: Dimensions that count samples, of the output and of every point that names none of its own.
        feedback: Distribution, scaling and seed of F, which that release did not have.
    """

    feeds_the_output = True

    def __init__(
        self,
        dfa_layers: Sequence[DFALayer] | nn.ModuleList,
        normalization: bool = True,
        rp_device: torch.device | str | None = None,
        no_training: bool = False,
        feedback_points_handling: FeedbackPointsHandling = FeedbackPointsHandling.LAST,
        batch_dims: tuple[int, ...] | None = (0,),
        *,
        feedback: Feedback | None = None,
    ) -> None:
        super().__init__(dfa_layers, feedback, batch_dims)
        self.normalization = normalization
        self.no_training = no_training
        self.feedback_points_handling = FeedbackPointsHandling(feedback_points_handling)
        self.link.change(device=rp_device)
        self.feedback = feedback or Feedback()

    @property
    def feedback(self) -> Feedback:
        return self.link.settings.feedback

    @feedback.setter
    def feedback(self, feedback: Feedback) -> None:
        self.link.change(feedback=feedback if self.normalization else replace(feedback, scaling=Scaling.NONE))

    @property
    def rp_device(self) -> Any:
        return self.link.settings.device

    @rp_device.setter
    def rp_device(self, device: torch.device | str | None) -> None:
        self.link.change(device=device)

    def _broadcasts(self, settings: Settings) -> bool:
        return settings.rule.broadcasts and not self.no_training
