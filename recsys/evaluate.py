"""How well a model ranks and predicts the clicks of a part of a log."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import NonFiniteLoss, UserError
from harness.precision import at_least_float32
from harness.processes import Processes, current
from recsys.log.clicks import Clicks

AT_ONCE = 4096  # rows of a forward pass; AFN holds 15,000 numbers per row


@dataclass(frozen=True)
class Score:
    """Area under the ROC curve, and mean binary cross-entropy in nats per row."""

    auc: float
    log_loss: float


def evaluate(model: nn.Module, clicks: Clicks, device: torch.device) -> Score:
    """Score a model on a part of a log, which is sharded over processes.

    Raises:
        UserError: all rows have the same label, so that there is no ranking to score.
        NonFiniteLoss: a logit is not finite.
    """
    from sklearn.metrics import roc_auc_score

    labels = clicks.labels
    if int(labels.max()) == int(labels.min()):
        raise UserError(f"all {len(labels)} rows to be scored have the label {int(labels[0])}. Use more --rows.")
    logits = predict_logits(model, clicks, device)
    if not torch.isfinite(logits).all():
        broken = int((~torch.isfinite(logits)).sum())
        raise NonFiniteLoss(
            f"{broken} of {len(logits)} logits are not finite: training diverged. Lower the learning rate."
        )
    loss = F.binary_cross_entropy_with_logits(logits.double(), labels.double())
    return Score(auc=float(roc_auc_score(labels.numpy(), logits.numpy())), log_loss=loss.item())


@torch.no_grad()
def predict_logits(model: nn.Module, clicks: Clicks, device: torch.device) -> Tensor:
    """Logits of all rows in order, ``[N]``, at least float32, on the CPU, the same in every process."""
    processes: Processes = current()
    model.eval()
    step = AT_ONCE * processes.size
    parts = []
    for start in range(0, len(clicks), step):
        fields, _ = clicks.batch(slice(start, start + step))
        parts.append(at_least_float32(model(processes.share(fields).to(device)).squeeze(1)))
    return processes.merge(torch.cat(parts))
