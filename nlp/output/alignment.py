"""How far a method's hidden gradients point along backpropagation's, on one batch of text."""

from __future__ import annotations

from torch import Tensor, nn

from harness.run.numbers import at_points
from nlp.model.transformer import cross_entropy
from tinydfa import Attachment, measure_alignment


def batch_alignment(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor) -> dict[str, float]:
    """Mean cosine over tokens at every feedback point, dropout off.

    Args:
        model: What `attachment` is attached to; left in evaluation mode.
        attachment: Its method is compared with backpropagation.
        x: Tokens ``[B, T]``.
        y: The next ones, -100 where there is none.
    """

    def loss(model: nn.Module) -> Tensor:
        attachment.target = y
        return cross_entropy(model(x), y)

    model.eval()
    return at_points(measure_alignment(model, loss), attachment.points)
