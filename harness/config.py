"""What the training commands of every task share: where a run takes its data, where it runs and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from harness.errors import UserError
from harness.methods import known, named
from harness.seeds import check_seed

# The type of an argument that a command inherits and has no use for: it is no option there.
Unused = tyro.conf.Suppress[tyro.conf.Fixed[Any]]
# A training method on the command line.
MethodName = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME",
        help=f"How hidden layers learn: {', '.join(known())}, or a rule of your own, file.py:Class; dfa if left out.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The arguments of every `train` command. A task adds its own, and its data set and epochs with their meaning."""

    method: MethodName = None
    seed: int = 0
    """Seed of the weights, the feedback, dropout and any split that is drawn."""
    epochs: int | None = None
    """Passes over the training data; the published number if left out."""
    data_dir: Path | None = None
    """Data root; else $DFA_DATA, else the user's cache folder."""
    out: Path | None = None
    """Folder of the run; else runs/<task>/<name>."""
    resume: bool = False
    """Continue an interrupted run."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    checkpoint_every: int = 10
    """Epochs between checkpoints."""

    def __post_init__(self) -> None:
        for option, value in (("--epochs", self.epochs), ("--checkpoint-every", self.checkpoint_every)):
            if value is not None and value < 1:
                raise UserError(f"{option} {value}: give at least 1.")
        check_seed(self.seed)
        if self.method is not None:
            object.__setattr__(self, "method", named(self.method))
