"""Training by epochs: the loop, an epoch of it, and how a model is scored.

On several processes (`harness.processes`) each takes its share of the samples of a batch, and gradients are averaged
over processes, so that a step is that of one process with the whole batch. `check_processes`
refuses settings for which this does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from harness import processes
from harness.errors import UserError
from harness.methods import check_shares
from harness.precision import autocast, products
from harness.run import Run
from harness.run.numbers import at_points, by_curve
from tinydfa import Attachment, Feedback, measure_alignment
from vision.data.splits import Data, Split
from vision.history import History
from vision.losses import LOSSES, Loss, wrong
from vision.optimizers import make_optimizer
from vision.preset import Preset

EVALUATION_BATCH = 1000
Measure = Callable[[], dict[str, float]]  # the alignment by feedback point
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fit(
    run: Run,
    model: nn.Module,
    attachment: Attachment,
    data: Data,
    preset: Preset,
    measure: Measure,
    *,
    alignment_every: int | None,
    checkpoint_every: int,
) -> History:
    """Train for the epochs of `preset`, from where `run` stopped.

    Args:
        run: Its folder has the checkpoints and the numbers of each epoch.
        model: The model, on the device of `data`.
        attachment: What is attached to it.
        data: The images.
        preset: The optimiser, the loss, the batches and the epochs.
        measure: Measures the alignment.
        alignment_every: Epochs between two measurements; None: there are none.
        checkpoint_every: Epochs between checkpoints; the last epoch has one, too.

    Raises:
        NonFiniteLoss: training diverged.
    """
    optimizer = make_optimizer(preset.optimizer, model, preset.lr, preset.weight_decay)
    history = History()
    state: dict[str, Any] = {"model": model, "attachment": attachment, "optimizer": optimizer, "history": history}
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(preset.milestones))
    if preset.milestones:
        state["scheduler"] = scheduler
    net = processes.train_together(model, attachment, data.train.x.device)
    done = run.resume(state)
    history.forget_last_alignment(done, alignment_every, preset.epochs)
    for epoch in run.track(range(done + 1, preset.epochs + 1), f"{preset.model}, {preset.method}"):
        if history.has_settled(preset.tolerance):
            break
        begin = perf_counter()
        loss, error = train_epoch(net, data.train, optimizer, preset, attachment)
        scheduler.step()
        numbers = {"train_loss": loss, "train_error": error} | evaluations(model, data, preset)
        measured = measure() if is_due(epoch, alignment_every, preset.epochs) else {}
        history.add(perf_counter() - begin, measured, **numbers)
        run.log(epoch, **{name: value for name, value in numbers.items() if value is not None}, **by_curve(measured))
        if is_due(epoch, checkpoint_every, preset.epochs):
            run.save(epoch, **state)
    return history


def is_due(epoch: int, every: int | None, last: int) -> bool:
    """Whether something is done after `epoch` that is done every so many epochs, and after the last; None: never."""
    return every is not None and (epoch % every == 0 or epoch == last)


def train_epoch(
    model: nn.Module, data: Split, optimizer: torch.optim.Optimizer, preset: Preset, attachment: Attachment
) -> tuple[float, float | None]:
    """One pass over the training data; mean loss and share of wrong answers (None: regression) over its samples."""
    model.train()
    loss_fn, group = LOSSES[preset.loss], processes.current()
    total, seen = torch.zeros(2, device=data.x.device), 0
    for whole, targets in data.batches(preset.batch, flip=preset.flip, drop_last=preset.drop_last):
        x, y = group.share(whole), group.share(targets)
        attachment.target = y
        optimizer.zero_grad()
        with products(preset.precision):
            with autocast(preset.precision, x):
                output = model(x)
            loss = loss_fn(output, y)
            (loss * scale_of(preset, len(x), len(whole))).backward()
        optimizer.step()
        total += scores(loss, output, y)
        seen += len(whole)
    return means(total, seen)


def scale_of(preset: Preset, samples: int, batch: int) -> float:
    """The factor on the mean loss of this process's `samples` of a `batch`.

    Averaged over processes, gradients are then those of the mean over the batch, or of the sum.
    """
    return processes.current().size * samples / (1 if preset.reduction == "sum" else batch)


def evaluations(model: nn.Module, data: Data, preset: Preset) -> dict[str, float | None]:
    """Loss and error on the test data, error on what was held out."""
    test_loss, test_error = evaluate(model, data.test, preset)
    val_error = None if data.val is None else evaluate(model, data.val, preset)[1]
    return {"val_error": val_error, "test_loss": test_loss, "test_error": test_error}


@torch.no_grad()
def evaluate(model: nn.Module, data: Split, preset: Preset) -> tuple[float, float | None]:
    """Mean loss and share of wrong answers (None: regression) over all samples, dropout off."""
    model.eval()
    group, total = processes.current(), torch.zeros(2, device=data.x.device)
    for whole, targets in data.batches(EVALUATION_BATCH, shuffle=False):
        x, y = group.share(whole), group.share(targets)
        with products(preset.precision), autocast(preset.precision, x):
            output = model(x)
        total += scores(LOSSES[preset.loss](output, y), output, y)
    return means(total, len(data))


@torch.no_grad()
def scores(loss: Tensor, output: Tensor, target: Tensor) -> Tensor:
    """Sums over a batch, ``[2]``: loss, and wrong answers (not a number for a regression). Nothing waits for a GPU."""
    if len(target) == 0:  # a last batch with fewer samples than there are processes
        return output.new_zeros(2)
    misses = output.new_tensor(math.nan) if target.is_floating_point() else wrong(output, target)
    return torch.stack([loss * len(target), misses])


def means(total: Tensor, samples: int) -> tuple[float, float | None]:
    """Means over `samples`, of which each process has the `total` of its own."""
    group = processes.current()
    if group.size > 1:
        total = torch.stack(group.gather(total.cpu())).sum(dim=0)
    loss, error = (total / samples).tolist()
    return loss, None if math.isnan(error) else error


def batch_alignment(model: nn.Module, attachment: Attachment, x: Tensor, y: Tensor, loss_fn: Loss) -> dict[str, float]:
    """How far a method's hidden gradients point along backpropagation's: the mean cosine over samples, dropout off.

    Args:
        model: What `attachment` is attached to; left in evaluation mode.
        attachment: Its method is compared with backpropagation.
        x: Samples ``[B, ...]``.
        y: Their targets.
        loss_fn: See `vision.losses`.

    Returns:
        The cosine by the name of the feedback point.
    """

    def loss(model: nn.Module) -> Tensor:
        attachment.target = y
        return loss_fn(model(x), y)

    model.eval()
    return at_points(measure_alignment(model, loss), attachment.points)


@dataclass(frozen=True, kw_only=True)
class SummedFeedback(Feedback):
    """The feedback of an error that is summed over a whole batch, of which this process has only a share.

    Args:
        samples: In the whole batch.
    """

    samples: int = 1

    def scale(self, outputs: int, largest: int, width: int) -> float:
        """The factor on the projection to a point of width `width`."""
        return self.samples * super().scale(outputs, largest, width)


def feedback_of(preset: Preset, seed: int) -> Feedback:
    """The feedback of `preset`, drawn by `seed`."""
    feedback = replace(preset.feedback, seed=seed)
    if processes.current().size == 1 or not feedback.error_sum:
        return feedback
    return SummedFeedback(**(vars(feedback) | {"error_sum": False}), samples=preset.batch)


def check_batches(preset: Preset, data: Data) -> None:
    """Raise `UserError` where no batch can be made as the preset says."""
    count = len(data.train)
    if preset.drop_last and preset.batch > count:
        raise UserError(f"--batch {preset.batch} leaves no whole batch of {count} samples. Make it {count} or less.")
    if preset.flip and len(data.shape) != 3:
        raise UserError(f"the preset mirrors images, and the samples of {data.name} are vectors. Use another preset.")


def check_processes(preset: Preset, model: nn.Module, number: int) -> None:
    """Raise `UserError` for what `number` processes cannot train as one would."""
    if number == 1:
        return
    check_shares(preset.method, number)
    if preset.batch < number:
        raise UserError(f"--batch {preset.batch}: {number} processes share its samples. Give at least {number}.")
    if any(isinstance(module, BATCH_NORMS) for module in model.modules()):
        raise UserError(
            f"{number} processes were started, and this network ({preset.model}) has batch normalisation, whose "
            "statistics would be those of each process's share. Start it without accelerate or torchrun."
        )
    if preset.feedback.error_sum and not preset.drop_last:
        raise UserError(
            f"{number} processes were started, and this preset sums errors over batches of one size, but keeps a last "
            "one that is smaller. Start it without accelerate or torchrun."
        )
