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
from typing import Any

from harness import processes
from harness.device import pick_device
from harness.methods import check_shares
from harness.precision import check_precision
from harness.run import NullRun, Run, check_loss
from harness.run.launch import check_launch
from harness.run.numbers import alignments, by_curve
from nlp.config import Config
from nlp.output.alignment import batch_alignment
from nlp.output.evaluate import Score, evaluate
from nlp.output.generate import continued
from nlp.saved import VOCABULARY
from nlp.text.corpora import FILES
from nlp.text.load import Corpus, load_corpus
from nlp.text.streams import chunks
from nlp.trainer import Trainer


def train(config: Config, run: Run | None = None, corpus: Corpus | None = None) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        corpus: The text, if it was loaded already.

    Returns:
        The result (see `harness.tables.results.make_result`). Its curves have an entry a validation: step, train_loss
        (nats per token since the one before), val_loss; and one a measurement of the alignment.

    Raises:
        UserError: an impossible configuration, missing or damaged text, or a loss that is not finite.
    """
    preset, device = config.preset, pick_device(config.device)
    corpus = corpus or load(config)
    run = run or NullRun("nlp", config.settings())
    trainer = trainer_of(config)(config, corpus, device)
    if (state := run.restore(by_others=lambda saved: bool(config.pipeline or saved.get("stages")))) is not None:
        trainer.load_state_dict(state)
        if trainer.validated_as_last:
            run.say(
                f"Prolonged from step {trainer.progress.step}, where its end was validated. A run of {trainer.total} "
                "steps at once has no validation there, so that its schedule and its best weights may be others."
            )
    run.keep(VOCABULARY, corpus.vocabulary.to_json() + "\n")
    label, left = f"{preset.granularity}, {preset.method}", trainer.total - trainer.progress.step
    for chunk in run.track(trainer.remaining(), label, left):
        run.show(trainer.step(chunk), chunk.y.numel())
        if trainer.validates or trainer.aligns or trainer.saves:
            with trainer.paused():
                look(trainer, run)

    trainer.best.restore(trainer.model)
    test = score(trainer, "test")  # once; it chooses nothing
    curves: dict[str, Any] = dict(trainer.progress.curves)
    if config.sample:
        curves["sample"] = continued(trainer.model, corpus.val, corpus.vocabulary, config.sample, preset.chunk)
    return run.finish(model="transformer", metrics=summary(trainer, test), curves=curves, device=device)


def look(trainer: Trainer, run: Run) -> None:
    """Take the measurements and write the checkpoint that are due."""
    if trainer.aligns:
        align(trainer, run)
    if trainer.validates:
        validate(trainer, run)
    if trainer.saves or trainer.finished:
        run.save(trainer.progress.step, **trainer.state_dict())


def trainer_of(config: Config) -> type[Trainer]:
    """What trains the model: whole, or a stage of it in each process."""
    if config.pipeline is None:
        return Trainer
    from nlp.pipeline import PipelinedTraining  # torch's pipelines take a while to load

    return PipelinedTraining


def summary(trainer: Trainer, test: Score) -> dict[str, float]:
    """The final metrics of a training; of each alignment the last measurement."""
    progress = trainer.progress
    last = {name: values[-1] for name, values in alignments(progress.curves).items()}
    tested = {"test_perplexity": test.perplexity, "test_word_perplexity": test.word_perplexity}
    how = {"best_step": trainer.best.step, "steps": progress.step}
    return last | progress.best | tested | how | {"tokens_per_second": progress.trained / progress.seconds}


def validate(trainer: Trainer, run: Run) -> None:
    """Score the validation text, and let schedule, best weights and curves know."""
    found, step = score(trainer, "val"), trainer.progress.step
    numbers = {"train_loss": trainer.mean_loss(), "val_loss": found.nats}
    lr = trainer.schedule.lr
    trainer.schedule.validated(found.perplexity)
    if trainer.best.update(found.nats, step, trainer.model):
        perplexities = {"val_perplexity": found.perplexity, "val_word_perplexity": found.word_perplexity}
        trainer.progress.best = perplexities
    trainer.progress.note(step=step, **numbers)
    run.log(step, **numbers, val_perplexity=found.perplexity, lr=lr)
    check_loss(found.nats, step)


def score(trainer: Trainer, split: str) -> Score:
    """How well the model predicts "val" or "test"."""
    preset, corpus = trainer.preset, trainer.corpus
    return evaluate(
        trainer.model,
        getattr(corpus, split),
        corpus.words[split],
        batch=preset.batch,
        chunk=preset.chunk,
        device=trainer.device,
        precision=trainer.config.precision,
        processes=trainer.group,
        name=f"the {FILES[split]} text of {corpus.name}",
    )


def align(trainer: Trainer, run: Run) -> None:
    """Measure the alignment on the first chunk of the validation text; the same in every process."""
    preset, corpus, step = trainer.preset, trainer.corpus, trainer.progress.step
    first = chunks(corpus.val, preset.batch, preset.chunk, trainer.device)
    for chunk in itertools.islice(first, 1):
        numbers = by_curve(batch_alignment(trainer.model, trainer.attachment, chunk.x, chunk.y))
        trainer.progress.note(alignment_step=step, **numbers)
        run.log(step, **numbers)


def load(config: Config) -> Corpus:
    """The text of `config`, in its preset's tokens; one process of several reads it.

    Raises:
        UserError: missing or damaged text, a text shorter than a chunk, more processes than rows, or stages that
            cannot be trained.
    """
    preset, group = config.preset, processes.current()
    check_launch("nlp", config.precision, config.compile)
    check_precision(config.precision, pick_device(config.device))
    if config.pipeline is None:
        check_shares(preset.method, group.size)
    corpus = load_corpus(
        config.dataset,
        config.data_dir,
        vocabulary=preset.vocabulary,
        size=preset.vocabulary_size,
        lower=preset.lower,
        text_dir=config.text_dir,
        processes=group,
    )
    name = f"the training text of {corpus.name}"
    chunks(corpus.train, preset.batch, preset.chunk, "cpu", processes=group, name=name)  # refuses too short a text
    config.check_pipeline()
    return corpus


if __name__ == "__main__":
    from harness.command import command

    command("nlp", Config, load, train)
