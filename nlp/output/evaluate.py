"""Perplexity of a language model on a whole stream: every token but the first is predicted exactly once."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from harness.errors import UserError
from harness.precision import at_least_float32
from harness.processes import ALONE, Processes
from nlp.text.streams import IGNORED, chunk_count, chunks


class Score(NamedTuple):
    """Perplexity of a text."""

    nats: float  # cross-entropy per token, natural logarithm
    perplexity: float  # exp(nats): depends on the vocabulary, and compares models that share one
    word_perplexity: float  # exp(all nats / words): compares across vocabularies
    tokens: int  # predictions


@torch.no_grad()
def evaluate(
    model: nn.Module,
    tokens: np.ndarray,
    words: int,
    *,
    batch: int,
    chunk: int,
    device: torch.device | str,
    precision: str = "fp32",
    processes: Processes = ALONE,
    name: str = "the text",
) -> Score:
    """Score a model in evaluation mode; its mode is restored.

    A token is predicted from those before it in its chunk, as in the code release of arXiv 2006.12878: the first of
    each chunk from one token. A stream shorter than `chunk` is one shorter chunk.

    Args:
        model: Token ids ``[B, T]`` to logits ``[B, T, V]``.
        tokens: The stream, ``[N]``.
        words: Words of its text, for `word_perplexity`.
        batch: Chunks at a time, over all processes.
        chunk: Tokens T of a chunk.
        device: Where the model is.
        precision: "fp32", or "bf16": forward pass under autocast; the loss is at least float32 in both.
        processes: Those that share the text; each gets the score of all of it.
        name: What the stream is called in messages.

    Raises:
        UserError: there is nothing to predict.
    """
    if len(tokens) < 2:
        raise UserError(f"{name} has {len(tokens)} tokens, and a perplexity needs 2. Use a longer text.")
    chunk = min(chunk, len(tokens) - 1)
    batch = max(min(batch, chunk_count(len(tokens), 1, chunk)), processes.size)  # no empty rows without need
    device, mode = torch.device(device), model.training
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    sums = []
    model.eval()
    try:
        for x, y, _ in chunks(tokens, batch, chunk, device, processes=processes, name=name):
            with autocast:
                logits = model(x)
            flat = at_least_float32(logits.flatten(0, 1))
            sums.append(F.cross_entropy(flat, y.flatten(), ignore_index=IGNORED, reduction="sum"))
    finally:
        model.train(mode)
    total = processes.total(torch.stack(sums).cpu().double().sum().item())
    predictions = len(tokens) - 1
    return Score(total / predictions, _exp(total / predictions), _exp(total / words), predictions)


def _exp(nats: float) -> float:
    """e to the `nats`, infinite where a float cannot hold it."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
