"""The options of a training: the preset's settings, and where and how it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config import BaseConfig
from harness.errors import UserError
from harness.files import name_of
from harness.methods import check_compile, rule_of, slug
from harness.options import Flat, PresetName, refuse_without_effect
from harness.precision import Precision
from harness.processes import started
from harness.run.memory import REPLAY, MemoryConfig
from nlp.presets import NEEDS, Preset, find_preset
from tinydfa import Method


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig, MemoryConfig):
    """Train a Transformer language model."""

    may_change = ("pipeline", "microbatches", "overlap")

    preset: Flat[Preset]
    named: PresetName = None
    dataset: str = "synthetic"
    """synthetic, which needs no files, docs, tinyshakespeare, wikitext-2 or wikitext-103."""
    text_dir: Path | None = None
    """A folder of your own texts, in place of --dataset: train.txt, valid.txt and test.txt, or documents."""
    precision: Precision = "fp32"
    """bf16: forward pass under autocast."""
    compile: bool = False
    """Compile the model."""
    pipeline: int | None = None
    """Train in as many stages, one a process; start them by torchrun --nproc-per-node."""
    microbatches: int = 4
    """Parts of a batch that follow one another through the stages."""
    overlap: bool = False
    """A stage begins the next step when its own weights are updated; needs --clip-norm inf."""
    alignment_every: int | None = None
    """Steps between measurements of the alignment with backpropagation; none if left out."""
    sample: int = 0
    """Tokens of text to write when training is done, kept in the result for the report."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""

    @staticmethod
    def choose(
        preset: str | None = None,
        granularity: str | None = None,
        method: str | None = None,
        dataset: str = "synthetic",
        epochs: int | None = None,
        steps: int | None = None,
    ) -> Preset:
        """The preset that these options select.

        Raises:
            UserError: there is no such preset, or it has another method or granularity.
        """
        found = find_preset(preset, granularity, method, dataset)
        return found if epochs is None or steps is not None else found.by_epochs(epochs)

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, value in (("--pipeline", self.pipeline), ("--microbatches", self.microbatches)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: give at least 1.")
        if self.pipeline is None and (self.overlap or self.microbatches != 4):
            option = "--overlap" if self.overlap else "--microbatches"
            raise UserError(f"{option} has no effect without --pipeline. Add it, or leave both out.")
        if self.alignment_every is not None and self.alignment_every < 1:
            raise UserError(f"--alignment-every {self.alignment_every}: give at least 1.")
        if self.sample < 0:
            raise UserError(f"--sample {self.sample}: give a number of tokens, 0 for none.")
        if self.text_dir is not None and (self.dataset != "synthetic" or self.data_dir is not None):
            option = "--data-dir" if self.dataset == "synthetic" else "--dataset"
            raise UserError(f"{option} and --text-dir name two texts. Leave one of them out.")
        self.keeps(self.preset.method)  # refused now if it is impossible
        if self.compile:
            check_compile(self.preset.method)

    def check(self, typed: frozenset[str]) -> None:
        """Refuse options that were typed and have no effect."""
        refuse_without_effect(typed, self.preset, NEEDS)

    @property
    def data_name(self) -> str:
        """The corpus, or the folder of one's own texts."""
        return self.dataset if self.text_dir is None else name_of(self.text_dir, "texts")

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        row = self.named or f"{self.preset.granularity}_{slug(self.preset.method)}"
        return f"{row}-{self.data_name}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """All that decides the run's numbers: the preset, the text and the seed."""
        found = vars(self.preset) | {"dataset": self.data_name, "precision": self.precision, "seed": self.seed}
        if self.pipeline is not None:
            found |= {"pipeline": self.pipeline, "microbatches": self.microbatches, "overlap": self.overlap}
        return found

    def lengths(self) -> dict[str, str]:
        """A run can be prolonged, unless its learning rate depends on how long it is."""
        cycle = "onecycle raises and lowers the learning rate over all of them"
        why = cycle if self.preset.schedule == "onecycle" else ""
        return {"steps": why, "epochs": why, "patience": ""}

    def check_pipeline(self) -> None:
        """Raise `UserError` for what cannot be trained in stages as it is asked for."""
        preset, stages = self.preset, self.pipeline
        if stages is None:
            return
        if started() != stages:
            raise UserError(
                f"--pipeline {stages} trains in as many processes, and {started()} started. Use torchrun "
                f"--nproc-per-node {stages} -m nlp.train ..."
            )
        if stages > preset.layers:
            raise UserError(f"--pipeline {stages} cannot share {preset.layers} blocks. Give at most {preset.layers}.")
        if preset.batch % self.microbatches:
            raise UserError(
                f"--batch {preset.batch} cannot be cut into {self.microbatches} equal microbatches. Give a divisor of "
                "it as --microbatches."
            )
        for given, option, reason in (
            (preset.tied, "--tied", "the embedding is in the first stage and the decoder in the last"),
            (self.compile, "--compile", "the stages' points are hooks, which a compiled module leaves out"),
            (self.alignment_every is not None, "--alignment-every", "BP's gradients would have to pass all stages"),
        ):
            if given:
                raise UserError(f"{option} does not go with --pipeline: {reason}. Leave one of them out.")
        rule = rule_of(preset.method)
        if preset.method != Method.BP and not rule.broadcasts:
            raise UserError(
                f"--method {preset.method} does not go with --pipeline, which trains by rules that broadcast the error "
                "(dfa, sdfa, drtp, fitted, fdfa, or one of your own) and by bp. Choose one of them."
            )
        if self.memory not in (None, REPLAY):
            raise UserError(
                f"--memory {self.memory} does not go with --pipeline: a stage keeps its graphs, or runs again. Give "
                "replay, or leave it out."
            )
        if self.overlap and preset.method == Method.BP:
            raise UserError("--overlap has no effect under bp: its stages wait for one another. Leave it out.")
        if self.overlap and preset.clip_norm != math.inf:
            raise UserError(
                f"--clip-norm {preset.clip_norm} needs the gradients of all stages before any may be updated, so that "
                "none can go ahead. Give --clip-norm inf, or leave out --overlap."
            )
