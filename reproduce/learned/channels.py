"""Tried on the convolutional network: one signal a channel of a feature map, the same at all of its positions.

The F of a channel is then the least-squares fit to the gradients at all of its positions, which is the mean over them
of what `fitted` solves for. Where a maximum came from is not asked: the pool is below the point.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tinydfa.rules import Fitted


@dataclass(frozen=True, repr=False)
class PerChannel(Fitted):
    """`fitted`, with as many different columns as a point has channels.

    Args:
        channels: Width and channels of every point that is a feature map, ``[B, channels, height, width]``.
        exact_every, memory, ridge, rows, adapt, exact_between, steady: See `Fitted`.
    """

    name = "fitted"
    channels: tuple[tuple[int, int], ...] = ()

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        super().update(feedback, moments, memory)
        if channels := dict(self.channels).get(feedback.shape[1]):
            positions = feedback.unflatten(1, (channels, -1))  # a view
            positions.copy_(positions.mean(dim=2, keepdim=True).expand_as(positions))
