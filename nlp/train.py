"""Language modelling: train one Transformer on one text by one method.

    python -m nlp.train --dataset docs --granularity macro --method dfa
    python -m nlp.train --dataset docs --preset small_micro_schedule
    accelerate launch --num_processes 2 -m nlp.train --dataset docs --method bp
    torchrun --nproc-per-node 2 -m nlp.train --pipeline 2 --dataset docs --method dfa

Adam on the mean cross-entropy of the next token, a schedule of the learning rate, early stopping on the validation
perplexity. The best weights are restored, also when the steps ran out before the patience did, and the test text is
used once, for them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness import processes
from harness.device import pick_device
from harness.errors import UserError
from harness.methods import slug
from harness.precision import check_precision
from harness.run import NullRun, Run, check_loss, read_config
from harness.run.checkpoint import read_checkpoint
from harness.run.launch import check_launch
from nlp.alignment import batch_alignment
from nlp.config import RunConfig
from nlp.evaluate import Score, evaluate
from nlp.model.generate import continued
from nlp.model.transformer import LanguageModel
from nlp.presets import Preset
from nlp.text.corpora import FILES
from nlp.text.load import Corpus
from nlp.text.streams import chunks
from nlp.text.vocabulary import Vocabulary
from nlp.training import Training, refuse_other_vocabulary

VOCABULARY = "vocabulary.json"  # in the run's folder: which text a token stands for


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Train a Transformer language model."""


def train(
    config: RunConfig,
    run: Run | None = None,
    corpus: Corpus | None = None,
    device: torch.device | None = None,
    preset: Preset | None = None,
) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        corpus: The text, if it was loaded already.
        device: The device, if it was picked already.
        preset: Its settings; None: those that `config` means.

    Returns:
        The result (see `harness.tables.results.make_result`). Its curves have an entry a validation: step, train_loss
        (nats per token since the one before), val_loss; and one a measurement of the alignment.

    Raises:
        UserError: an impossible configuration, missing or damaged text, or a loss that is not finite.
    """
    preset = preset or config.resolve()
    device, corpus = device or pick_device(config.device), corpus or config.load(preset)
    check(preset, corpus)
    config.check_pipeline(preset)
    run = run or NullRun("nlp", config.settings(preset, corpus))
    training = training_of(config)(config, preset, corpus, device)
    if (state := run.restore()) is not None:
        training.load_state_dict(state)
    run.keep(VOCABULARY, corpus.vocabulary.to_json() + "\n")
    label, left = f"{preset.granularity}, {preset.method}", training.total - training.progress.step
    training.go_on()
    for chunk in run.track(training.remaining(), label, left):
        training.step(chunk)
        aligns = config.alignment_every is not None and training.progress.step % config.alignment_every == 0
        saves = training.progress.step % config.checkpoint_every == 0
        if not (training.validates or aligns or saves):
            continue
        training.pause()
        check_loss(training.progress.loss, training.progress.step)
        if aligns:
            align(training, run)
        if training.validates:
            validate(training, config, run)
        if saves or training.finished:
            run.save(training.progress.step, **training.state_dict())
        training.go_on()

    training.best.restore(training.model)
    test = score(training, "test", config)  # once; it chooses nothing
    curves: dict[str, Any] = dict(training.progress.curves)
    if config.sample:
        text, words = corpus.val, corpus.vocabulary
        curves["sample"] = continued(training.model, text, words, config.sample, preset.chunk)
    return run.finish(model="transformer", metrics=summary(training, test), curves=curves, device=device)


def training_of(config: RunConfig) -> type[Training]:
    """What trains the model: whole, or a stage of it in each process."""
    if config.pipeline is None:
        return Training
    from nlp.pipeline import PipelinedTraining  # torch's pipelines take a while to load

    return PipelinedTraining


def summary(training: Training, test: Score) -> dict[str, float]:
    """The numbers that a finished training comes to; an alignment is the last that was measured."""
    progress = training.progress
    last = {name: values[-1] for name, values in progress.curves.items() if name.startswith("alignment ")}
    tested = {"test_perplexity": test.perplexity, "test_word_perplexity": test.word_perplexity}
    how = {"best_step": training.best.step, "steps": progress.step}
    return last | progress.best | tested | how | {"tokens_per_second": progress.trained / progress.seconds}


def validate(training: Training, config: RunConfig, run: Run) -> None:
    """Score the validation text, and let schedule, best weights and curves know."""
    found, step = score(training, "val", config), training.progress.step
    numbers = {"train_loss": training.mean_loss(), "val_loss": found.nats}
    lr = training.schedule.lr
    training.schedule.validated(found.perplexity)
    if training.best.update(found.nats, step, training.model):
        perplexities = {"val_perplexity": found.perplexity, "val_word_perplexity": found.word_perplexity}
        training.progress.best = perplexities
    training.progress.note(step=step, **numbers)
    run.log(step, **numbers, val_perplexity=found.perplexity, lr=lr)
    check_loss(found.nats, step)


def score(training: Training, split: str, config: RunConfig) -> Score:
    """How well the model predicts "val" or "test"."""
    preset, corpus = training.preset, training.corpus
    return evaluate(
        training.model,
        getattr(corpus, split),
        corpus.words[split],
        batch=preset.batch,
        chunk=preset.chunk,
        device=training.device,
        precision=config.precision,
        processes=training.group,
        name=f"the {FILES[split]} text of {corpus.name}",
    )


def align(training: Training, run: Run) -> None:
    """Measure the alignment on the first chunk of the validation text; the same in every process."""
    preset, corpus, step = training.preset, training.corpus, training.progress.step
    first = chunks(corpus.val, preset.batch, preset.chunk, training.device)
    for chunk in itertools.islice(first, 1):
        cosines = batch_alignment(training.model, training.attachment, chunk.x, chunk.y)
        numbers = {f"alignment {point}": cosine for point, cosine in cosines.items()}
        training.progress.note(alignment_step=step, **numbers)
        run.log(step, **numbers)


def check(preset: Preset, corpus: Corpus) -> None:
    """Raise `UserError` for a text that is shorter than a chunk, or more processes than rows."""
    name = f"the training text of {corpus.name}"
    chunks(corpus.train, preset.batch, preset.chunk, "cpu", processes=processes.current(), name=name)


def load_run(folder: Path) -> tuple[LanguageModel, Vocabulary, Preset]:
    """The model of a run, finished or not, in evaluation mode on the CPU, with its vocabulary and preset.

    Its weights are the best so far, or the last where nothing has been validated.

    Raises:
        UserError: the folder is no run, its checkpoint is damaged, or its vocabulary is not the checkpoint's.
    """
    config, vocabulary, content = folder / "config.yaml", folder / VOCABULARY, None
    if config.is_file() and vocabulary.is_file():
        content = read_checkpoint(folder)
    if content is None:
        raise UserError(
            f"{folder} holds no run of nlp.train with a checkpoint. Give the folder that a training printed or was "
            "given by --out, after its first checkpoint."
        )
    another = "Give the folder of another run"
    try:
        preset = Preset.from_settings(read_config(folder, another))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{config} is not what a run of nlp.train writes ({error}). {another}.") from error
    words, state = read_vocabulary(vocabulary), content["state"]
    try:
        refuse_other_vocabulary(state["vocabulary"], words.fingerprint, f"in {vocabulary}")
        model = rebuilt(preset, words.size, state["best"]["weights"] or state["model"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"the checkpoint in {folder} is not of the model in {config} ({reason}). {another}.") from error
    return model, words, preset


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary in a run's folder.

    Raises:
        UserError: the file is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}). Restore it from a copy.") from error
    return Vocabulary.from_json(text)


def rebuilt(preset: Preset, size: int, weights: dict[str, Any]) -> LanguageModel:
    """The model of a preset with these weights, in evaluation mode.

    Raises:
        RuntimeError: the weights are those of another model; found out before a model of impossible size is built.
    """
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    if len(blocks) != preset.layers:
        raise RuntimeError(f"{preset.layers} layers, and the checkpoint has {len(blocks)}")
    model = LanguageModel(size, preset)
    model.load_state_dict(weights)
    return model.eval()


def main(config: Config) -> None:
    """Run the command."""
    preset = config.resolve()
    check_launch("nlp", config.precision, config.compile)
    device = processes.join(config.device)
    check_precision(config.precision, device)
    corpus = config.load(preset)  # before the folder is made: a missing file should not leave one behind
    check(preset, corpus)
    config.check_pipeline(preset)
    row = config.preset or f"{preset.granularity}_{slug(preset.method)}"
    settings = config.settings(preset, corpus) | {"device": config.device, "data_dir": config.data_dir}
    with Run("nlp", f"{row}-{corpus.name}-{config.seed}", settings, config.out, config.resume) as run:
        train(config, run, corpus, device)
    processes.leave()


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
