"""One training: the model, what trains it, and how far it is. A checkpoint holds all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import processes
from harness.errors import UserError
from harness.methods import check_compile, rule_of
from harness.precision import Precision, at_least_float32
from harness.run.best import BestWeights
from harness.run.stateful import Record
from harness.seeds import seed_everything
from recsys.log.batches import Batch
from recsys.models.click_models import build_model
from recsys.optimizers import clip_norm, make_optimizers
from recsys.preset import Preset
from tinydfa import attach


@dataclass
class Progress(Record):
    """Where a training is, and what it has found."""

    epoch: int = 1  # the one in progress
    batch: int = 0  # batches of it that are done
    rows: int = 0  # rows of them
    loss: float = 0.0  # their summed loss in nats, over all processes
    curves: dict[str, list[float]] = field(default_factory=dict)  # one number an epoch in which it was measured

    def next_epoch(self, **numbers: float) -> None:
        """Add an epoch's numbers to the curves and turn to the next epoch."""
        for name, value in numbers.items():
            self.curves.setdefault(name, []).append(value)
        self.epoch, self.batch, self.rows, self.loss = self.epoch + 1, 0, 0, 0.0


class Training:
    """A model with everything that trains it.

    Args:
        preset: Model, method and hyper-parameters.
        field_dims: Categories of each field.
        device: Where to train.
        seed: Decides weights, feedback and dropout.
        precision: "bf16" runs the forward pass under autocast.
        compile: Compile the model.
    """

    def __init__(
        self,
        preset: Preset,
        field_dims: Sequence[int],
        device: torch.device,
        *,
        seed: int = 0,
        precision: Precision = "fp32",
        compile: bool = False,
    ) -> None:
        self.preset, self.device, self.bf16 = preset, device, precision == "bf16"
        self.group = processes.current()
        seed_everything(seed)
        self.model = build_model(preset, field_dims).to(device)
        if rule_of(preset.method).cuts and preset.embedding_feedback == "through":
            self.model.embedding_point = nn.Identity()  # no feedback point
        self.attachment = attach(self.model, preset.method, seed=seed)
        if rule_of(preset.method).cuts and preset.embedding_feedback == "off":
            withhold_feedback(self.model)
        untouched = has_untouched(preset)
        self.net = processes.train_together(self.model, self.attachment, device, some_untouched=untouched)
        if compile:
            check_compile(preset.method)
            self.net = torch.compile(self.net)  # type: ignore[assignment]
        self.optimizers = make_optimizers(self.model, preset.lr)
        self.best, self.progress = BestWeights(preset.patience, mode="max"), Progress()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the validation AUC has stopped growing."""
        return self.progress.epoch > self.preset.max_epochs or self.best.given_up

    def step(self, batch: Batch) -> Tensor:
        """One step of Adam; the loss before it, summed over this process's rows, in nats."""
        self.net.train()
        self.attachment.target = batch.labels
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.net(batch.fields).squeeze(1)
        logits = at_least_float32(logits)
        loss = F.binary_cross_entropy_with_logits(logits, batch.labels.to(logits), reduction="sum")
        self.optimizers.zero_grad()
        (loss * (self.group.size / batch.rows)).backward()  # the mean over all rows: processes average gradients
        if self.preset.clip_norm is not None:
            clip_norm(self.model.parameters(), self.preset.clip_norm)
        self.optimizers.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, for `Run.resume` and `Run.save`."""
        return {
            "model": self.model,
            "attachment": self.attachment,
            "optimizers": self.optimizers,
            "best": self.best,
            "progress": self.progress,
        }


class Ids:
    """A mark of the encoder that gives the categories their ids: a checkpoint fits no others.

    Args:
        fingerprint: That of the encoder of the data given now.
    """

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def state_dict(self) -> str:
        """The fingerprint."""
        return self.fingerprint

    def load_state_dict(self, trained: str) -> None:
        """Raise `UserError` unless the run was trained on the same ids."""
        if trained != self.fingerprint:
            raise UserError(
                f"--resume: the run's categories have the ids of the encoder {trained}, and those of the data given "
                f"now have the ids of {self.fingerprint}: an id would stand for another category. Resume it with the "
                "file it was trained on (--criteo-file, --data-dir), or start another with --out."
            )


def sum_type(device: torch.device) -> torch.dtype:
    """The type to sum losses in: float64, but float32 on mps, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def withhold_feedback(model: nn.Module) -> None:
    """Detach the embeddings from the hidden layers, so that they learn only from what bypasses these, if anything does.

    As in the 2020 release: DeepFM's perceptron sees detached embeddings, which learn from the pairwise products alone;
    AFN's embeddings stop at a point that is missing from the head's list, and keep their initial values.

    Raises:
        AttributeError: the model has no hidden layers.
    """
    point = model.get_submodule("embedding_point")
    point.register_forward_pre_hook(lambda module, inputs: inputs[0].detach())


def has_untouched(preset: Preset) -> bool:
    """Whether some parameters get no gradient: those below the last point, or embeddings that nothing trains.

    DeepFM's embeddings learn from its pairwise products, whatever the hidden layers do.
    """
    withheld = rule_of(preset.method).cuts and preset.embedding_feedback == "off"
    return not rule_of(preset.method).reaches_all or (withheld and preset.model != "deepfm")
