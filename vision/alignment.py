"""How far a method's hidden gradients point along backpropagation's, on one batch."""

from __future__ import annotations

from torch import Tensor, nn

from tinydfa import Attachment, measure_alignment
from vision.losses import Loss


def batch_alignment(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor, loss_fn: Loss) -> dict[str, float]:
    """Mean cosine over samples at every feedback point, dropout off.

    Args:
        model: What `attachment` is attached to; left in evaluation mode.
        attachment: Its method is compared with backpropagation.
        x: Samples ``[B, ...]``.
        y: Their targets.
        loss_fn: See `vision.losses`.
    """

    def loss(model: nn.Module) -> Tensor:
        if attachment.rule.needs_target:
            attachment.target = y
        return loss_fn(model(x), y)

    model.eval()
    found = measure_alignment(model, loss)
    return {name: found[name].mean for name in attachment.points if name in found}
