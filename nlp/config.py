"""What the training command takes, and what it means."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from harness import config
from harness.errors import UserError
from harness.methods import rule_of
from harness.precision import Precision
from harness.processes import current, started
from harness.run.memory import MemoryConfig
from nlp.presets import Preset, find_preset
from nlp.text.load import Corpus, load_corpus
from tinydfa import Method


@dataclass(frozen=True, kw_only=True)
class RunConfig(config.RunConfig, MemoryConfig):
    """Which text, model and method. Settings that are left out come from the preset."""

    dataset: str = "synthetic"
    """synthetic, which needs no files, docs, tinyshakespeare, wikitext-2 or wikitext-103."""
    text_dir: Path | None = None
    """A folder of your own texts, in place of --dataset: train.txt, valid.txt and test.txt, or documents."""
    preset: str | None = None
    """A named preset, such as macro_schedule or small_micro_adam, in place of granularity and method."""
    granularity: Literal["macro", "micro"] | None = None
    """A feedback point after each block (macro), or three a block (micro); macro if left out."""
    points_embedding: bool | None = None
    """One more feedback point after the embedding."""
    error_at: Literal["hidden", "logits"] | None = None
    """Take the error below (hidden) or above the vocabulary projection."""
    last_block: Literal["projected", "error"] | None = None
    """What the last block gets where the error is taken right above it: its projection, or the error itself."""
    attention: str | None = None
    """standard, fixed, dense or random."""
    layers: int | None = None
    """Blocks."""
    d_model: int | None = None
    """Width."""
    d_ff: int | None = None
    """Width of the hidden layer of a block."""
    heads: int | None = None
    """Attention heads."""
    dropout: float | None = None
    """Share of activations and attention weights dropped."""
    tied: bool | None = None
    """The decoder's weights are the embedding's."""
    vocabulary: Literal["bpe", "char"] | None = None
    """Tokens: pieces of words, or characters."""
    vocabulary_size: int | None = None
    """Tokens of the vocabulary, at most."""
    lower: bool | None = None
    """Turn the text into lower case."""
    chunk: int | None = None
    """Tokens of a sequence."""
    batch: int | None = None
    """Sequences of a step, over all processes."""
    schedule: str | None = None
    """noam, adam, onecycle, radam or plateau."""
    lr: float | None = None
    """Learning rate; of noam its factor."""
    warmup: int | None = None
    """Steps of noam's rising learning rate."""
    betas: tuple[float, float] | None = None
    """Adam's betas, such as 0.9 0.999."""
    clip_norm: float | None = None
    """Largest norm of all gradients together."""
    steps: int | None = None
    """Steps, at most; the epochs still end training if they are over before."""
    validate_every: int | None = None
    """Steps between validations."""
    patience: int | None = None
    """Validations without a better perplexity before training stops."""
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

    def resolve(self) -> Preset:
        """The preset that these arguments mean.

        Raises:
            UserError: there is no such preset, or a setting is impossible.
        """
        preset = find_preset(self.preset, self.granularity, self.method, self.dataset)
        self.keeps(preset.method)  # said now if it cannot be
        shared = {field.name for field in fields(self)} & {field.name for field in fields(Preset)}
        given: dict[str, Any] = {name: getattr(self, name) for name in shared - {"method", "granularity"}}
        given = {name: value for name, value in given.items() if value is not None}
        if self.epochs is not None and self.steps is None:
            given["steps"] = None  # as many as these epochs have, whatever the preset's own length
        preset = replace(preset, **given)
        self._refuse_without_effect(preset)
        return preset

    def _refuse_without_effect(self, preset: Preset) -> None:
        """Raise `UserError` for an option that was given and that another one leaves without effect."""
        for option, other, has_effect in (
            ("heads", "attention", preset.attention != "fixed"),
            ("vocabulary_size", "vocabulary", preset.vocabulary != "char"),
            ("warmup", "schedule", preset.schedule == "noam"),
            ("last_block", "error_at", preset.error_at == "hidden" or preset.last_block == "projected"),
        ):
            if getattr(self, option) is not None and not has_effect:
                words = [f"--{name.replace('_', '-')} {getattr(preset, name)}" for name in (option, other)]
                raise UserError(f"{words[0]} has no effect under {words[1]}. Leave one of them out.")

    def check_pipeline(self, preset: Preset) -> None:
        """Raise `UserError` for what cannot be trained in stages as it is asked for."""
        stages = self.pipeline
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
        if preset.method != Method.BP and (rule.learns or not rule.broadcasts):
            raise UserError(
                f"--method {preset.method} does not go with --pipeline, which trains by rules with fixed feedback "
                "(dfa, sdfa, drtp, or one of your own) and by bp. Choose one of them."
            )
        if self.overlap and preset.method == Method.BP:
            raise UserError("--overlap has no effect under bp: its stages wait for one another. Leave it out.")
        if self.overlap and preset.clip_norm != math.inf:
            raise UserError(
                f"--clip-norm {preset.clip_norm} needs the gradients of all stages before any may be updated, so that "
                "none can go ahead. Give --clip-norm inf, or leave out --overlap."
            )

    def load(self, preset: Preset) -> Corpus:
        """The text that these arguments name, in the preset's tokens."""
        return load_corpus(
            self.dataset,
            self.data_dir,
            vocabulary=preset.vocabulary,
            size=preset.vocabulary_size,
            lower=preset.lower,
            text_dir=self.text_dir,
            processes=current(),
        )

    def settings(self, preset: Preset, corpus: Corpus) -> dict[str, Any]:
        """All that decides the run's numbers: the preset, the text and the seed."""
        found = vars(preset) | {"dataset": corpus.name, "precision": self.precision, "seed": self.seed}
        if self.pipeline is not None:
            found |= {"pipeline": self.pipeline, "microbatches": self.microbatches, "overlap": self.overlap}
        return found
