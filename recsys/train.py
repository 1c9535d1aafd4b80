"""Click-through prediction: train one model on one click log by one method.

    python -m recsys.train --model deepfm --dataset adult --method dfa
    python -m recsys.train --table my.csv --label clicked
    accelerate launch --num_processes 2 -m recsys.train --model dcn --dataset criteo --method dfa

Adam, binary cross-entropy, early stopping on the validation AUC. The best weights are restored, also when the epochs
ran out before the patience did, and the test part is used once, for them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import torch

from harness import processes
from harness.device import pick_device
from harness.methods import slug
from harness.precision import check_precision
from harness.run import NullRun, Run, check_loss
from harness.run.launch import check_launch
from recsys.alignment import batch_alignment, summary
from recsys.config import RunConfig, check_share, small_log_hint
from recsys.evaluate import evaluate
from recsys.log.batches import Batch, batch_count, batches
from recsys.log.clicks import ClickData, Clicks
from recsys.log.encoder import ENCODER
from recsys.presets import Preset
from recsys.training import Training, refuse_other_ids, sum_type


@dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Train a click model."""


def train(
    config: RunConfig,
    preset: Preset | None = None,
    run: Run | None = None,
    data: ClickData | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        preset: What it trains; None: what `config` means.
        run: Its folder; None: it leaves none.
        data: The click log, if it was loaded already.
        device: The device, if it was picked already.

    Returns:
        The result (see `harness.tables.results.make_result`), with curves per epoch.

    Raises:
        UserError: an impossible configuration, missing or damaged data, other data than that of the run to be resumed,
            or a loss that is not finite.
    """
    preset = preset or config.resolve()
    device, data = device or pick_device(config.device), data or config.load(config.data_dir)
    run = run or NullRun("recsys", config.settings(preset))
    training = Training(config, preset, data.field_dims, device, encoder=data.encoder.fingerprint)
    if (state := run.restore()) is not None:
        refuse_other_ids(state.get("encoder"), training.encoder, run.folder)
        training.load_state_dict(state)
    run.keep(ENCODER, json.dumps(data.encoder.to_dict()) + "\n")
    best, progress = training.best, training.progress
    while progress.epoch <= preset.max_epochs and not best.given_up:
        train_epoch(training, data.train, config, run)
        found = {"train_loss": progress.loss / progress.rows}
        check_loss(found["train_loss"], progress.epoch)
        score = evaluate(training.model, data.val, device)
        best.update(score.auc, progress.epoch, training.model)
        found |= {"val_auc": score.auc, "val_log_loss": score.log_loss}
        if config.alignment:
            found |= batch_alignment(training, last_batch(training, data.train, config))
        run.log(progress.epoch, **found)
        progress.next_epoch(**found)
        run.save(progress.epoch - 1, **training.state_dict())
    best.restore(training.model)
    test = evaluate(training.model, data.test, device)  # once; it chooses nothing

    metrics: dict[str, Any] = {"test_auc": test.auc, "test_log_loss": test.log_loss}
    metrics |= {"val_auc": best.score, "best_epoch": best.step, "epochs": progress.epoch - 1}
    metrics |= {"best_possible_auc": data.best_auc} | summary(progress.curves)
    return run.finish(model=preset.model, metrics=metrics, curves=progress.curves, device=device)


def train_epoch(training: Training, clicks: Clicks, config: RunConfig, run: Run) -> None:
    """Train on what is left of the epoch in progress.

    Checkpoints are written while a batch of it is left; the one after the last comes with what the epoch has found.
    """
    preset, progress, group = training.preset, training.progress, training.group
    count = batch_count(len(clicks), preset.batch)
    todo = batches(clicks, preset.batch, config.seed, progress.epoch, training.device, group, skip=progress.batch)
    summed = torch.zeros((), dtype=sum_type(training.device), device=training.device)
    label = f"{preset.model}, {preset.method}, epoch {progress.epoch}"
    for batch in run.track(todo, label, count - progress.batch):
        summed += training.step(batch)
        progress.batch, progress.rows = progress.batch + 1, progress.rows + batch.rows
        if progress.batch % config.checkpoint_every == 0 and progress.batch < count:
            progress.loss += group.total(summed.item())
            summed.zero_()
            check_loss(progress.loss, progress.epoch)
            run.save(progress.epoch - 1, **training.state_dict())
    progress.loss += group.total(summed.item())


def last_batch(training: Training, clicks: Clicks, config: RunConfig) -> Batch:
    """The last batch of the epoch in progress, whether or not it was trained on since the start of this process."""
    preset = training.preset
    skip = batch_count(len(clicks), preset.batch) - 1
    return next(
        batches(clicks, preset.batch, config.seed, training.progress.epoch, training.device, training.group, skip)
    )


def main(config: Config) -> None:
    """Run the command."""
    preset = config.resolve()
    check_launch("recsys", config.precision, config.compile)
    device = processes.join(config.device)
    check_share(preset.batch, processes.current().size)
    check_precision(config.precision, device)
    name = f"{config.preset or f'{preset.model}_{slug(preset.method)}'}-{config.source}-{config.seed}"
    settings = config.settings(preset) | {"device": config.device, "data_dir": config.table or config.data_dir}
    data = config.load(config.data_dir)  # before the folder is made: a missing file should not leave one behind
    if processes.current().is_main and (hint := small_log_hint(config, preset, len(data.train))):
        print(hint, file=sys.stderr)
    with Run("recsys", name, settings, config.out, config.resume) as run:
        train(config, preset, run, data, device)
    processes.leave()


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
