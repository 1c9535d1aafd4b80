"""Alignment of a method's hidden gradients with backpropagation's, on the last batch of an epoch (Table A.1)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from harness.run.numbers import alignments, at_points, by_curve
from recsys.log.batches import Batch
from recsys.models.embeddings import dense_gradients
from tinydfa import measure_alignment

if TYPE_CHECKING:
    from recsys.training import Training


def batch_alignment(training: Training, batch: Batch) -> dict[str, float]:
    """Mean cosine over the rows of `batch` at every feedback point, without dropout, as "alignment <point>".

    A point without a gradient, such as embeddings that learn nothing, is left out.
    """
    attachment = training.attachment

    def loss(model: nn.Module) -> Tensor:
        attachment.target = batch.labels
        return binary_cross_entropy_with_logits(model(batch.fields).squeeze(1), batch.labels)

    training.model.eval()
    with dense_gradients(training.model):
        found = measure_alignment(training.model, loss)
    return by_curve(at_points(found, attachment.points))


def summary(curves: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean cosine over points at the last and the first measurement, and at the last point, which is the deepest DFA
    layer, at the last measurement; empty if nothing was measured."""
    measured = list(alignments(curves).values())
    if not measured:
        return {}
    last, first = (statistics.fmean(values[epoch] for values in measured) for epoch in (-1, 0))
    return {"alignment": last, "alignment_start": first, "alignment_deepest": measured[-1][-1]}
