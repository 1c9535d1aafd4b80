"""Click-through prediction: train one model on one click log by one method.

    python -m recsys.train --model deepfm --dataset adult --method dfa
    python -m recsys.train --table my.csv --label clicked
    accelerate launch --num_processes 2 -m recsys.train --model dcn --dataset criteo --method dfa

Adam, binary cross-entropy, early stopping on the validation AUC. The weights with the best validation AUC are restored
at the end, whether or not training stopped early, and are scored once on the test part.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import torch

from harness.device import pick_device
from harness.methods import check_shares
from harness.precision import check_precision
from harness.processes import current
from harness.run import NullRun, Run, check_loss
from harness.run.launch import check_launch
from recsys.alignment import batch_alignment, summary
from recsys.config import Config, check_share, small_log_hint
from recsys.data import load_once
from recsys.evaluate import evaluate
from recsys.log.batches import Batch, batch_count, batches
from recsys.log.clicks import ClickData, Clicks
from recsys.log.encoder import ENCODER
from recsys.training import Ids, Training, sum_type


def train(config: Config, run: Run | None = None, data: ClickData | None = None) -> dict[str, Any]:
    """Train a model.

    Args:
        config: The preset to train, its data and its device.
        run: The run's folder; None: leave none.
        data: The click log, if it is loaded already.

    Returns:
        The result (see `harness.tables.results.make_result`), with curves per epoch.

    Raises:
        UserError: missing or damaged data, or other data than that of the run to resume.
        NonFiniteLoss: the loss is not finite.
    """
    preset, device, data = config.preset, pick_device(config.device), data or config.load(config.data_dir)
    run = run or NullRun("recsys", config.settings())
    how: dict[str, Any] = {"seed": config.seed, "precision": config.precision, "compile": config.compile}
    training = Training(preset, data.field_dims, device, **how)
    state = {"encoder": Ids(data.encoder.fingerprint)} | training.state()
    run.resume(state)
    run.keep(ENCODER, json.dumps(data.encoder.to_dict()) + "\n")
    progress, best = training.progress, training.best
    while not training.finished:
        found = {"train_loss": train_epoch(training, data.train, config, run, state)}
        score = evaluate(training.model, data.val, device)
        best.update(score.auc, progress.epoch, training.model)
        found |= {"val_auc": score.auc, "val_log_loss": score.log_loss}
        if config.alignment_every and progress.epoch % config.alignment_every == 0:
            found |= batch_alignment(training, last_batch(training, data.train, config.seed))
        run.log(progress.epoch, **found)
        progress.next_epoch(**found)
        if training.finished or (progress.epoch - 1) % config.checkpoint_every == 0:
            run.save(progress.epoch - 1, **state)
    best.restore(training.model)
    test = evaluate(training.model, data.test, device)  # once, and nothing is chosen by it

    metrics: dict[str, Any] = {"test_auc": test.auc, "test_log_loss": test.log_loss}
    metrics |= {"val_auc": best.score, "best_epoch": best.step, "epochs": progress.epoch - 1}
    metrics |= {"best_possible_auc": data.best_auc} | summary(progress.curves)
    return run.finish(model=preset.model, metrics=metrics, curves=progress.curves, device=device)


def train_epoch(training: Training, clicks: Clicks, config: Config, run: Run, state: Mapping[str, Any]) -> float:
    """Train on the remaining batches of the epoch in progress.

    Checkpoints are written while batches of it remain; the one at its end is written with its validation.

    Returns:
        The mean loss over the rows of the epoch, in nats.
    """
    preset, progress, group = training.preset, training.progress, training.group
    count = batch_count(len(clicks), preset.batch)
    todo = batches(clicks, preset.batch, config.seed, progress.epoch, training.device, group, skip=progress.batch)
    summed = torch.zeros((), dtype=sum_type(training.device), device=training.device)
    label = f"{preset.model}, {preset.method}, epoch {progress.epoch}"
    for batch in run.track(todo, label, count - progress.batch):
        loss = training.step(batch)
        run.show(loss, len(batch.labels))
        summed += loss
        progress.batch, progress.rows = progress.batch + 1, progress.rows + batch.rows
        if progress.batch % config.checkpoint_batches == 0 and progress.batch < count:
            progress.loss += group.total(summed.item())
            summed.zero_()
            check_loss(progress.loss, progress.epoch)
            run.save(progress.epoch - 1, **state)
    progress.loss += group.total(summed.item())
    check_loss(progress.loss, progress.epoch)
    return progress.loss / progress.rows


def last_batch(training: Training, clicks: Clicks, seed: int) -> Batch:
    """The last batch of the epoch in progress, even if it was trained on before an interruption."""
    size, epoch = training.preset.batch, training.progress.epoch
    skip = batch_count(len(clicks), size) - 1
    return next(batches(clicks, size, seed, epoch, training.device, training.group, skip))


def load(config: Config) -> ClickData:
    """The click log of `config`, once its other options are known to work on this device.

    Raises:
        UserError: they do not, or there is no such log.
    """
    check_launch("recsys", config.precision, config.compile)
    check_share(config.preset.batch, current().size)
    check_shares(config.preset.method, current().size)
    check_precision(config.precision, pick_device(config.device))
    data = load_once(config, config.data_dir)
    if current().is_main and (hint := small_log_hint(config, len(data.train))):
        print(hint, file=sys.stderr)
    return data


if __name__ == "__main__":
    from harness.command import command

    command("recsys", Config, load, train)
