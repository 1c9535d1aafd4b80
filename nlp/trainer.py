"""The state of a training: model, method, optimizer, schedule and progress, all kept in checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from torch import nn

from harness import processes
from harness.errors import UserError
from harness.precision import at_least_float32
from harness.run import check_loss
from harness.run.best import BestWeights
from harness.run.stateful import Record
from harness.seeds import seed_everything
from nlp.config import Config
from nlp.model.transformer import LanguageModel, cross_entropy
from nlp.schedules import Schedule, make_optimizer
from nlp.text.load import Corpus
from nlp.text.streams import Chunk, chunk_count, chunks
from tinydfa import attach


@dataclass
class Progress(Record):
    """Where a training is, and what it has found."""

    step: int = 0  # steps done
    epoch: int = 1  # the one in progress
    chunk: int = 0  # chunks of it that are done
    loss: float = 0.0  # summed since the last validation, over all processes, in nats
    tokens: int = 0  # whose loss that is
    trained: int = 0  # tokens since the beginning
    seconds: float = 0.0  # that steps took
    best: dict[str, float] = field(default_factory=dict)  # metrics of the best weights
    curves: dict[str, list[float]] = field(default_factory=dict)

    def note(self, **numbers: float) -> None:
        """Append numbers to the curves."""
        for name, value in numbers.items():
            self.curves.setdefault(name, []).append(value)


class Trainer:
    """A model with everything that trains it.

    Args:
        config: The run; its seed decides weights, feedback and dropout.
        corpus: The text.
        device: Where to train.
    """

    def __init__(self, config: Config, corpus: Corpus, device: torch.device) -> None:
        self.config, self.corpus, self.device = config, corpus, device
        self.preset = preset = config.preset
        self.bf16, self.group = config.precision == "bf16", processes.current()
        self.per_epoch = chunk_count(len(corpus.train), preset.batch, preset.chunk)
        whole = preset.epochs * self.per_epoch
        self.total = whole if preset.steps is None else min(preset.steps, whole)
        seed_everything(config.seed)
        self.model = LanguageModel(corpus.vocabulary.size, preset).to(device)
        self.readers = self.group  # processes that share the rows of a batch
        self._attach(config)
        self.optimizer = make_optimizer(preset, self.model.parameters())
        self.schedule = Schedule(preset, self.optimizer, self.total)
        self.best, self.progress = BestWeights(preset.patience), Progress()
        self._summed = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        self._since = perf_counter()

    def _attach(self, config: Config) -> None:
        """Make the model train by the method, over all processes."""
        feedback, keeps = replace(self.preset.feedback, seed=config.seed), config.keeps(self.preset.method)
        self.attachment = attach(self.model, self.preset.method, feedback=feedback, memory=keeps)
        self.net: Any = processes.train_together(self.model, self.attachment, self.device)
        if config.compile:
            self.net = torch.compile(self.net)

    def _method_state(self) -> dict[str, Any]:
        return self.attachment.state_dict()

    def _load_method_state(self, state: dict[str, Any]) -> None:
        self.attachment.load_state_dict(state)

    @property
    def finished(self) -> bool:
        return self.progress.step >= self.total or self.best.given_up

    @property
    def validates(self) -> bool:
        """Whether a validation is due after the steps done."""
        step, every = self.progress.step, self.preset.validate_every
        due = self.progress.chunk == self.per_epoch if every is None else step % every == 0
        return due or step == self.total

    @property
    def validated_as_last(self) -> bool:
        """Whether the last validation was made at the end of a run that is longer now."""
        return not self.validates and self.progress.curves.get("step", [])[-1:] == [self.progress.step]

    @property
    def aligns(self) -> bool:
        """Whether a measurement of the alignment is due."""
        every = self.config.alignment_every
        return every is not None and self.progress.step % every == 0

    @property
    def saves(self) -> bool:
        """Whether a checkpoint is due."""
        return self.progress.step % self.config.checkpoint_every == 0

    def remaining(self) -> Iterator[Chunk]:
        """The text from where the training is, epoch after epoch until it is finished. Call `step` with each."""
        self._since = perf_counter()
        preset, text = self.preset, self.corpus.train
        while not self.finished:
            done = self.progress.chunk
            for chunk in chunks(text, preset.batch, preset.chunk, self.device, start=done, processes=self.readers):
                yield chunk
                if self.finished:
                    return
            self.progress.epoch, self.progress.chunk = self.progress.epoch + 1, 0

    def step(self, chunk: Chunk) -> torch.Tensor | None:
        """One step of the optimiser on this process's rows of a chunk; their summed loss before it, None if unknown."""
        self.net.train()
        self.attachment.target = chunk.y
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.net(chunk.x)
        loss = cross_entropy(at_least_float32(logits), chunk.y)
        self.optimizer.zero_grad()
        (loss * (self.group.size / chunk.tokens)).backward()  # the mean over all tokens: processes average gradients
        nn.utils.clip_grad_norm_(self.model.parameters(), self.preset.clip_norm)
        self.optimizer.step()
        self._note(chunk, loss.detach())
        return loss.detach()

    def _note(self, chunk: Chunk, loss: torch.Tensor) -> None:
        """Count a step."""
        self.schedule.step()
        self._summed += loss
        progress = self.progress
        progress.step, progress.chunk = progress.step + 1, progress.chunk + 1
        progress.tokens, progress.trained = progress.tokens + chunk.tokens, progress.trained + chunk.tokens

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside this block loss, weights and time are up to date, and the clock of the steps is stopped.

        Raises:
            NonFiniteLoss: the loss is not finite.
        """
        self.pause()
        check_loss(self.progress.loss, self.progress.step)
        yield
        self._since = perf_counter()

    def pause(self) -> None:
        """Stop the clock of the steps; bring the loss up to date."""
        self.progress.loss += self.group.total(self._summed.item())
        self._summed.zero_()
        self.progress.seconds += perf_counter() - self._since

    def mean_loss(self) -> float:
        """Nats per token since the last call, after `pause`."""
        progress = self.progress
        mean = progress.loss / progress.tokens
        progress.loss, progress.tokens = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds, besides the generators."""
        return {
            "vocabulary": self.corpus.vocabulary.fingerprint,
            "model": self.model.state_dict(),
            "attachment": self._method_state(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "best": self.best.state_dict(),
            "progress": self.progress.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            UserError: it was trained on other tokens.
        """
        refuse_other_vocabulary(state["vocabulary"], self.corpus.vocabulary.fingerprint, f"of {self.corpus.name}")
        self.model.load_state_dict(state["model"])
        self._load_method_state(state["attachment"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.best.load_state_dict(state["best"])
        self.progress.load_state_dict(state["progress"])


def refuse_other_vocabulary(trained: str, found: str, where: str) -> None:
    """Raise `UserError` unless a checkpoint's vocabulary is the one `where`."""
    if trained != found:
        raise UserError(
            f"the checkpoint was trained on tokens of the vocabulary {trained}, and that {where} is {found}: a number "
            "would stand for another word. Use the text and vocabulary it was trained on, or start another with --out."
        )
