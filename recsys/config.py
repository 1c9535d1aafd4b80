"""The arguments of this task's commands, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from harness import config
from harness.errors import UserError
from harness.methods import rule_of, slug
from harness.precision import Precision
from recsys.data import DataOptions
from recsys.datasets.own import OWN
from recsys.preset import EmbeddingFeedback, Preset
from recsys.presets import PRESETS, find_preset
from tinydfa import Method

FEW = 1_000_000  # rows to train on; the published experiments had 36 million


@dataclass(frozen=True, kw_only=True)
class RunConfig(config.RunConfig, DataOptions):
    """Which model, data and method, where it runs and where it writes."""

    model: str | None = None
    """fm, deepfm, dcn, autoint or afn; deepfm if left out."""
    preset: str | None = None
    """A named preset, such as afn_dfa, in place of model and method."""
    seed: int = 0
    """Seed of the weights, the feedback, dropout and the order of the batches. The split is fixed."""
    epochs: int | None = None
    """Passes over the training rows at most; the preset's number if left out."""
    lr: float | None = None
    """Adam's learning rate; the preset's if left out."""
    batch: int | None = None
    """Rows of a batch, over all processes; the preset's if left out."""
    dropout: float | None = None
    """Share of hidden activations dropped; the preset's if left out."""
    embedding_feedback: EmbeddingFeedback | None = None
    """What embeddings learn from the hidden layers: the method's own signal (on), nothing (off), or the gradient of the
    first of these layers (through); the preset's if left out."""
    sparse_embeddings: bool = False
    """Update the rows of a batch only, so that a step does not take longer with more categories."""
    precision: Precision = "fp32"
    """bf16: forward pass under autocast."""
    compile: bool = False
    """Compile the model."""
    alignment_every: int | None = None
    """Epochs between measurements of the alignment with backpropagation, each on the last batch of an epoch; never if
    left out."""
    alignment: bool = False
    """The same as --alignment-every 1."""
    checkpoint_every: int = 1
    """Epochs between checkpoints; there is always one at the end."""
    checkpoint_batches: int = 2000
    """Batches between checkpoints within an epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alignment and self.alignment_every is None:
            object.__setattr__(self, "alignment_every", 1)
        for option in ("alignment_every", "checkpoint_batches"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise UserError(f"--{option.replace('_', '-')} {value}: give at least 1.")
        if self.batch is not None and self.batch < 2:
            raise UserError(f"--batch {self.batch}: batch normalisation needs at least 2 rows.")
        if self.lr is not None and not 0 < self.lr < 10:
            raise UserError(f"--lr {self.lr}: give a number between 0 and 10, such as 0.001.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"--dropout {self.dropout}: give a share from 0 to below 1.")
        self.check_data()

    def resolve(self) -> Preset:
        """The preset that these arguments mean.

        Raises:
            UserError: there is no such preset, or an option would change nothing for it.
        """
        preset = find_preset(model=self.model, method=self.method, dataset=self.source, name=self.preset)
        self._check_for(preset)
        given: dict[str, Any] = {name: getattr(self, name) for name in ("lr", "batch", "dropout", "embedding_feedback")}
        given["max_epochs"] = self.epochs
        changes = {name: value for name, value in given.items() if value is not None}
        if self.sparse_embeddings:
            changes["sparse_embeddings"] = True
        return replace(preset, **changes)

    def _check_for(self, preset: Preset) -> None:
        """Raise `UserError` for options that would change nothing for the model and method of a preset."""
        if preset.model == "fm":
            for option, given in (
                ("dropout", self.dropout is not None),
                ("embedding-feedback", self.embedding_feedback is not None),
                ("alignment-every", self.alignment_every is not None),
            ):
                if given:
                    way_out = "Leave the option out, or choose another --model"
                    raise UserError(f"--{option}: FM has no hidden layer. {way_out}.")
        if self.embedding_feedback is not None:
            check_embedding_feedback(self.embedding_feedback, preset.method)
        if self.alignment_every is not None and preset.method is Method.BP:
            way_out = "Choose another --method, or leave the option out"
            raise UserError(f"--alignment-every: backpropagation would be compared with itself. {way_out}.")

    def settings(self, preset: Preset) -> dict[str, Any]:
        """All that decides what the run writes down: the preset, the data, the seed and what is measured."""
        run: dict[str, Any] = {"precision": self.precision, "seed": self.seed}
        run["alignment"] = self.alignment_every is not None
        if self.alignment_every not in (None, 1):
            run["alignment_every"] = self.alignment_every
        return vars(preset) | self.data_settings() | run


def check_embedding_feedback(setting: str, method: str) -> None:
    """Raise `UserError` for a method that has no signal of its own that embeddings could have or not."""
    if not rule_of(method).broadcasts:
        raise UserError(
            f"--embedding-feedback {setting}: {method} sends no signal of its own to the embeddings. Leave the option "
            "out, or choose dfa, sdfa, tdfa or drtp."
        )


def check_share(batch: int, processes: int) -> None:
    """Raise `UserError` if a batch has not a row for every process."""
    if batch < processes:
        raise UserError(f"--batch {batch}: {processes} processes share its rows. Give at least {processes}.")


def small_log_hint(config: RunConfig, preset: Preset, rows: int) -> str:
    """What to say where the published settings meet a log of few training rows, on which they learn little."""
    chosen = config.preset is not None or config.lr is not None
    if chosen or not config.source.startswith("criteo") or rows >= FEW:
        return ""
    name = f"{preset.model}_{slug(preset.method)}_{OWN}"
    way_out = f"--preset {name}" if name in PRESETS else "--lr 0.003 --batch 128"
    return (
        f"{rows} rows to train on are few for the published settings (learning rate {preset.lr:g}), which are for 36 "
        f"million. Try {way_out}."
    )
