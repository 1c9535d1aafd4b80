"""Tokens per second of the Transformer language model: DFA against backpropagation, and ours against plain torch.

    python -m benchmarks.nlp_tokens

All contestants train the model of arXiv 2006.12878 (6 blocks of width 512, dropout 0.1) on random tokens with clipped
gradients and Adam, and take turns within a round. Ratios of step times are medians over rounds.

    bp, macro, micro    `nlp.trainer.Trainer`, as `python -m nlp.train` runs it
    plain               the same network of `nn.TransformerEncoder` with a float mask, `torch.optim.Adam` as it comes

Beside DFA's ratios stand the limits that counting matrix products sets (see `limit`).
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.environment import save
from benchmarks.step_time import transformer_limit
from benchmarks.timing import Step, interleave, ratio
from harness.precision import Precision
from nlp.config import Config as TrainConfig
from nlp.model.transformer import sinusoids
from nlp.presets import Preset
from nlp.text.load import Corpus
from nlp.text.vocabulary import CharVocabulary
from nlp.trainer import Trainer
from tinydfa import Method

TARGETS: dict[Any, float] = {"macro": 0.96, "micro": 0.82}  # of backpropagation's step; what we hold ourselves to
AHEAD = 1.3  # tokens per second of ours over plain torch's, by backpropagation


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time training steps of the language model."""

    rounds: int = 6
    """Steps of each contestant."""
    batch: int = 8
    """Sequences of a step."""
    chunk: int = 128
    """Tokens of a sequence."""
    vocabulary: int = 8000
    """Tokens of the vocabulary."""
    layers: int = 6
    """Blocks."""
    d_model: int = 512
    """Width; blocks are four times as wide inside."""
    threads: int = 2
    """Threads that torch may use."""
    device: str = "cpu"
    """cpu or cuda."""
    precision: Precision = "fp32"
    """fp32 or bf16 (autocast)."""
    compile: bool = True
    """Also time all of them compiled."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""

    def preset(self) -> Preset:
        """The published settings at this size, trained by backpropagation."""
        sizes: dict[str, Any] = {"layers": self.layers, "d_model": self.d_model, "d_ff": 4 * self.d_model}
        return Preset(method=Method.BP, schedule="adam", lr=1e-4, chunk=self.chunk, batch=self.batch, **sizes)

    def limit_sizes(self) -> tuple[int, int, int, int]:
        """What `limit` counts products from."""
        return self.vocabulary, self.d_model, self.layers, self.chunk

    def sizes(self) -> str:
        """The sizes in words, for a table."""
        return f"{self.layers} x d {self.d_model}, vocabulary {self.vocabulary}, {self.batch} x {self.chunk}"


class PlainTransformer(nn.Module):
    """The same language model as one writes it down, sequences second: ``[T, B] -> [T, B, V]``."""

    positions: Tensor

    def __init__(self, vocabulary: int, preset: Preset) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, preset.d_model)
        layer = nn.TransformerEncoderLayer(preset.d_model, preset.heads, preset.d_ff, preset.dropout)
        self.encoder = nn.TransformerEncoder(layer, preset.layers, enable_nested_tensor=False)
        self.decoder = nn.Linear(preset.d_model, vocabulary)
        self.dropout = nn.Dropout(preset.dropout)
        self.register_buffer("positions", sinusoids(preset.chunk, preset.d_model)[:, None])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        x = self.dropout(x + self.positions[: len(x)])
        out: Tensor = self.decoder(self.encoder(x, mask))
        return out


def our_step(config: Config, preset: Preset, compiled: bool = False) -> Step:
    """One step of `nlp.train` on random tokens, ready to be called again and again."""
    vocabulary = CharVocabulary("".join(map(chr, range(1, config.vocabulary))))
    tokens = np.random.default_rng(0).integers(config.vocabulary, size=20 * config.batch * config.chunk)
    corpus = Corpus("random", tokens, tokens, tokens, {}, vocabulary)
    run = TrainConfig(preset=preset, compile=compiled, precision=config.precision)
    trainer = Trainer(run, corpus, torch.device(config.device))
    remaining = trainer.remaining()
    return lambda: trainer.step(next(remaining))


def plain_step(config: Config, preset: Preset, compiled: bool = False) -> Step:
    """One step of the plain model on random tokens."""
    torch.manual_seed(0)
    model = PlainTransformer(config.vocabulary, preset).to(config.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=preset.lr, betas=preset.betas, eps=1e-9)
    x, y = torch.randint(config.vocabulary, (2, config.chunk, config.batch), device=config.device)
    mask = nn.Transformer.generate_square_subsequent_mask(config.chunk).to(config.device)
    net: Any = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(config.device, torch.bfloat16, enabled=config.precision == "bf16"):
            logits = net(x, mask)
        F.cross_entropy(logits.float().view(-1, config.vocabulary), y.view(-1)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), preset.clip_norm)
        optimizer.step()

    return step


def limit(granularity: str, vocabulary: int, width: int, blocks: int, length: int) -> float:
    """Products of a DFA step over those of a backpropagation step (per token, in multiplications).

    A block has 12 w^2 weights, and backpropagation multiplies by each three times. A signal that enters at the end of a
    block (macro) passes all but the 3 w^2 of queries, keys and values on its way down, and these in the first block
    only, for the embedding. Micro: see `benchmarks.step_time.transformer_limit`. The vocabulary and attention's own
    products are the same for both.
    """
    if granularity == "micro":
        return transformer_limit(vocabulary, width, blocks, length)
    square, attention, top = width**2, 6 * length * width, 3 * vocabulary * width
    backprop = blocks * (36 * square + attention) + top
    projection = square
    return (blocks * (33 * square + attention) + 3 * square + projection + top) / backprop


def contestants(config: Config) -> dict[str, Step]:
    """A step of each, by name."""
    bp = config.preset()
    dfa = {name: replace(bp, method=Method.DFA, granularity=name) for name in TARGETS}
    steps = {name: our_step(config, preset) for name, preset in ({"bp": bp} | dfa).items()}
    steps["plain"] = plain_step(config, bp)
    if config.compile:
        for name, preset in ({"bp": bp} | dfa).items():
            steps[f"{name}, compiled"] = our_step(config, preset, compiled=True)
        steps["plain, compiled"] = plain_step(config, bp, compiled=True)
    return steps


def measure(config: Config) -> list[dict[str, Any]]:
    """One row per contestant."""
    times = interleave(contestants(config), config.rounds, warm_up=2, device=config.device)
    tokens = config.batch * config.chunk
    rows = []
    for name, seconds in times.items():
        row: dict[str, Any] = {"contestant": name, "ms a step": round(statistics.median(seconds) * 1e3, 1)}
        row["tokens/s"] = round(tokens / statistics.median(seconds))
        row["ratio to bp"] = round(ratio(times, name, "bp"), 3)
        row["ratio to bp, compiled"] = None
        rule = name.removesuffix(", compiled")
        if name != rule:
            row["ratio to bp, compiled"] = round(ratio(times, name, "bp, compiled"), 3)
        row["limit"] = round(limit(rule, *config.limit_sizes()), 3) if rule in TARGETS else None
        row["target"] = TARGETS.get(name, AHEAD if name == "plain" else None)
        rows.append(row)
    return rows


def main(config: Config) -> None:
    """Run the rounds and print the table."""
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(config.threads)
    rows = measure(config)
    sizes = config.sizes()
    table = Table(
        *rows[0],
        title=f"A training step: {sizes} tokens, {config.threads} thread(s), {config.device}, {config.precision}",
    )
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()))
    Console(width=120).print(table)
    if config.out is not None:
        save(config.out, config.device, [{"model": sizes, "precision": config.precision} | row for row in rows])


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
