"""One training: the model, what trains it, and how far it is. A checkpoint holds all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import processes
from harness.errors import UserError
from harness.methods import check_compile, rule_of
from harness.precision import at_least_float32
from harness.run.best import BestWeights
from harness.seeds import seed_everything
from recsys.config import RunConfig
from recsys.log.batches import Batch
from recsys.models.click_models import build_model
from recsys.optimizers import clip_norm, make_optimizers
from recsys.presets import Preset
from tinydfa import attach


@dataclass
class Progress:
    """Where a training is, and what it has found."""

    epoch: int = 1  # the one in progress
    batch: int = 0  # batches of it that are done
    rows: int = 0  # rows of them
    loss: float = 0.0  # their summed loss in nats, over all processes
    curves: dict[str, list[float]] = field(default_factory=dict)  # one number an epoch

    def next_epoch(self, **numbers: float) -> None:
        """Add an epoch's numbers to the curves and turn to the next epoch."""
        for name, value in numbers.items():
            self.curves.setdefault(name, []).append(value)
        self.epoch, self.batch, self.rows, self.loss = self.epoch + 1, 0, 0, 0.0


class Training:
    """A model with everything that trains it.

    Args:
        config: The run; its seed decides weights, feedback and dropout.
        preset: What `config` resolves to.
        field_dims: Categories of each field.
        device: Where to train.
        encoder: The fingerprint of what gives the categories their ids, for checkpoints.
    """

    def __init__(
        self,
        config: RunConfig,
        preset: Preset,
        field_dims: tuple[int, ...],
        device: torch.device,
        encoder: str | None = None,
    ) -> None:
        self.encoder = encoder
        self.preset, self.device, self.bf16 = preset, device, config.precision == "bf16"
        self.group = processes.current()
        seed_everything(config.seed)
        self.model = build_model(preset, field_dims).to(device)
        if rule_of(preset.method).cuts and preset.embedding_feedback == "through":
            self.model.embedding_point = nn.Identity()  # no feedback point
        self.attachment = attach(self.model, preset.method, seed=config.seed)
        if rule_of(preset.method).cuts and preset.embedding_feedback == "off":
            withhold_feedback(self.model)
        self.net = self.model
        if self.group.size > 1:
            self.net = processes.averaging(self.model, device, some_untouched=has_untouched(preset))
        if config.compile:
            check_compile(preset.method)
            self.net = torch.compile(self.net)  # type: ignore[assignment]
        self.optimizers = make_optimizers(self.model, preset.lr)
        self.best, self.progress = BestWeights(preset.patience, mode="max"), Progress()
        if self.group.rank > 0:
            seed_everything(config.seed + 1_000_003 * self.group.rank)  # dropout of its own; weights are the first's

    def step(self, batch: Batch) -> Tensor:
        """One step of Adam; the loss before it, summed over this process's rows, in nats."""
        self.net.train()
        self.attachment.target = batch.labels
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.net(batch.fields).squeeze(1)
        logits = at_least_float32(logits)
        loss = F.binary_cross_entropy_with_logits(logits, batch.labels.to(logits), reduction="sum")
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        (loss * (self.group.size / batch.rows)).backward()  # the mean over all rows: processes average gradients
        if self.preset.clip_norm is not None:
            clip_norm(self.model.parameters(), self.preset.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, besides the generators."""
        return {
            "encoder": self.encoder,
            "model": self.model.state_dict(),
            "attachment": self.attachment.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "best": self.best.state_dict(),
            "progress": vars(self.progress),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.attachment.load_state_dict(state["attachment"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.best.load_state_dict(state["best"])
        self.progress = Progress(**state["progress"])


def refuse_other_ids(trained: str | None, found: str | None, folder: Path) -> None:
    """Raise `UserError` unless the encoder of the run in `folder` is the one of its data now, by their fingerprints.

    Checkpoints of earlier versions do not say which theirs was (None).
    """
    if trained not in (None, found):
        raise UserError(
            f"{folder} holds a run whose categories have the ids of the encoder {trained}, and those of the data given "
            f"now have the ids of {found}: an id would stand for another category. Resume it with the file it was "
            "trained on (--criteo-file, --data-dir), or start another with --out."
        )


def sum_type(device: torch.device) -> torch.dtype:
    """What losses are added up in: float64, but float32 on mps, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def withhold_feedback(model: nn.Module) -> None:
    """Let embeddings learn nothing at the entry of the hidden layers: only by what bypasses these, if anything does.

    So it is in the 2020 release: DeepFM's perceptron sees detached embeddings, which learn through the pairwise
    products alone; AFN's embeddings stop at a point that is missing from the head's list, and keep their first values.

    Raises:
        AttributeError: the model has no hidden layers.
    """
    point = model.get_submodule("embedding_point")
    point.register_forward_pre_hook(lambda module, inputs: inputs[0].detach())


def has_untouched(preset: Preset) -> bool:
    """Whether some parameters get no gradient: below the last point, or embeddings that nothing teaches.

    DeepFM's embeddings learn from its pairwise products, whatever the hidden layers say.
    """
    withheld = rule_of(preset.method).cuts and preset.embedding_feedback == "off"
    return not rule_of(preset.method).reaches_all or (withheld and preset.model != "deepfm")
