"""Text by trained models: one prompt continued by one or more runs, such as BP and DFA, side by side.

python -m nlp.sample runs/nlp/bp runs/nlp/dfa --prompt "The statement" --length 100 --temperature 0.8 --seed 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.device import pick_device
from harness.errors import UserError
from harness.methods import slug
from harness.seeds import check_seed
from nlp.output.generate import check_settings, generate
from nlp.saved import load_run


@dataclass(frozen=True, kw_only=True)
class Config:
    """Continue a prompt with the models of finished runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs of nlp.train."""
    prompt: str = "The"
    """What to continue."""
    length: int = 100
    """Tokens to add."""
    temperature: float = 0.8
    """0: always the likeliest token; 1: by the model's own probabilities."""
    top_k: int | None = None
    """Draw from this many of the likeliest tokens; from all if left out."""
    seed: int = 0
    """Seed of the draws, the same for every run."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("no run to load. Give at least one folder that nlp.train wrote, such as runs/nlp/NAME.")
        check_seed(self.seed)
        check_settings(self.length, self.temperature, self.top_k)


@dataclass(frozen=True)
class Sample:
    """The text of one run."""

    title: str
    prompt: str
    continuation: str


def write_sample(folder: Path, config: Config) -> Sample:
    """Load a run and continue the prompt.

    Raises:
        UserError: the folder holds no run, or the prompt no token.
    """
    model, vocabulary, preset = load_run(folder)
    ids = generate(
        model.to(pick_device(config.device)),
        prompt := vocabulary.encode(config.prompt),
        config.length,
        temperature=config.temperature,
        top_k=config.top_k,
        generator=torch.Generator().manual_seed(config.seed),
        context=preset.chunk,
    )
    title = f"{folder.resolve().name}: {slug(preset.method)}, {preset.granularity}"
    return Sample(title, vocabulary.decode(prompt), vocabulary.decode(ids[len(prompt) :]))


def beside(samples: Sequence[Sample]) -> Table:
    """A column for each sample, the prompt in bold."""
    table = Table(expand=True)
    for sample in samples:
        table.add_column(Text(sample.title), ratio=1, overflow="fold")
    table.add_row(*(Text.assemble((sample.prompt, "bold"), sample.continuation) for sample in samples))
    return table


def main(config: Config) -> None:
    """Run the command."""
    Console().print(beside([write_sample(folder, config) for folder in config.runs]))


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
