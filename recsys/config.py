"""The options of this task's training command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import BaseConfig
from harness.errors import UserError
from harness.methods import check_compile, rule_of, slug
from harness.options import Flat, PresetName, refuse_without_effect
from harness.precision import Precision
from recsys.data import DataOptions
from recsys.datasets.own import OWN
from recsys.preset import NEEDS, Preset
from recsys.presets import PRESETS, PUBLISHED, find_preset
from tinydfa import Method

FEW = 1_000_000  # training rows; the published experiments had 36 million


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig, DataOptions):
    """Train a click model."""

    preset: Flat[Preset]
    named: PresetName = None
    seed: int = 0
    """Seed of the weights, the feedback, dropout and the order of the batches. The split is fixed."""
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

    @staticmethod
    def choose(
        preset: str | None = None,
        model: str | None = None,
        method: str | None = None,
        dataset: str = "synthetic",
        table: Path | None = None,
    ) -> Preset:
        """The preset that these options select."""
        return find_preset(name=preset, model=model, method=method, dataset=dataset if table is None else OWN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alignment and self.alignment_every is None:
            object.__setattr__(self, "alignment_every", 1)
        for option in ("alignment_every", "checkpoint_batches"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise UserError(f"--{option.replace('_', '-')} {value}: give at least 1.")
        if self.alignment_every is not None:
            check_alignment(self.preset)
        if self.compile:
            check_compile(self.preset.method)
        self.check_data()

    def check(self, typed: frozenset[str]) -> None:
        """Raise `UserError` for options that were typed and have no effect on this data set, model and method."""
        self.check_counting(typed)
        refuse_without_effect(typed, self.preset, NEEDS)
        if "embedding_feedback" in typed:
            check_embedding_feedback(self.preset)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.named or f'{self.preset.model}_{slug(self.preset.method)}'}-{self.source}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """The settings that determine the run's numbers: preset, data, seed, and what is measured."""
        run: dict[str, Any] = {"precision": self.precision, "seed": self.seed}
        run["alignment"] = self.alignment_every is not None
        if self.alignment_every not in (None, 1):
            run["alignment_every"] = self.alignment_every
        return vars(self.preset) | self.data_settings() | run

    def lengths(self) -> dict[str, str]:
        """A run can be prolonged: nothing in it depends on its length."""
        return {"max_epochs": "", "patience": ""}


def check_alignment(preset: Preset) -> None:
    """Raise `UserError` for a preset without hidden gradients to compare with those of backpropagation."""
    if preset.model == "fm":
        raise UserError("--alignment-every: FM has no hidden layer. Leave the option out, or choose another --model.")
    if preset.method is Method.BP:
        way_out = "Choose another --method, or leave the option out"
        raise UserError(f"--alignment-every: backpropagation would be compared with itself. {way_out}.")


def check_embedding_feedback(preset: Preset) -> None:
    """Raise `UserError` for a method that sends no signal to the embeddings."""
    if not rule_of(preset.method).broadcasts:
        raise UserError(
            f"--embedding-feedback {preset.embedding_feedback}: {preset.method} sends no signal of its own to the "
            "embeddings. Leave the option out, or choose dfa, sdfa, tdfa or drtp."
        )


def check_share(batch: int, processes: int) -> None:
    """Raise `UserError` if a batch has fewer rows than there are processes."""
    if batch < processes:
        raise UserError(f"--batch {batch}: {processes} processes share its rows. Give at least {processes}.")


def small_log_hint(config: Config, rows: int) -> str:
    """A hint for published settings on a log of few training rows, from which they learn little; else empty."""
    preset = config.preset
    published = any(preset.lr == other.lr for other in PUBLISHED.values() if other.model == preset.model)
    if config.named is not None or not published or not config.source.startswith("criteo") or rows >= FEW:
        return ""
    name = f"{preset.model}_{slug(preset.method)}_{OWN}"
    way_out = f"--preset {name}" if name in PRESETS else "--lr 0.003 --batch 128"
    return (
        f"{rows} rows to train on are few for the published settings (learning rate {preset.lr:g}), which are for 36 "
        f"million. Try {way_out}."
    )
