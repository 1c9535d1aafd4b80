"""What the training commands of every task share: where a run takes its data, where it runs and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from harness.errors import UserError
from harness.methods import known
from harness.run.metrics import TrackerName, check_trackers
from harness.seeds import check_seed

# The type of an inherited argument that a command does not use: it is not an option there.
Unused = tyro.conf.Suppress[tyro.conf.Fixed[Any]]
# A training method, as a field of a preset (see `harness.options`).
Method = Annotated[
    str,
    tyro.conf.arg(
        metavar="NAME", help=f"How hidden layers learn: {', '.join(known())}, or a rule of your own, file.py:Class."
    ),
]


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The options of every `train` command. A task adds its preset and its data set (see `harness.options`)."""

    renamed: ClassVar[Mapping[str, str]] = {}  # former options: name to the option that replaces it
    may_change: ClassVar[tuple[str, ...]] = ()  # options that may change at a resume: they affect no number
    found: ClassVar[tuple[str, ...]] = ()  # entries of a config.yaml that are not options: what was found in the data

    seed: int = 0
    """Seed of the weights, the feedback, dropout and any split that is drawn."""
    data_dir: Path | None = None
    """Data root; else $DFA_DATA, else the user's cache folder."""
    out: Path | None = None
    """Folder of the run; else runs/<task>/<name>."""
    resume: bool = False
    """Continue the run in its folder: to its end, or further."""
    config: Path | None = None
    """A YAML file of options, such as the config.yaml of a run; options that are typed override it."""
    tracker: tuple[TrackerName, ...] = ()
    """Where curves go besides the run's folder, which always has TensorBoard's events: wandb, mlflow or both."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    checkpoint_every: int = 10
    """Epochs between checkpoints."""

    def __post_init__(self) -> None:
        if self.checkpoint_every < 1:
            raise UserError(f"--checkpoint-every {self.checkpoint_every}: give at least 1.")
        check_seed(self.seed)
        check_trackers(self.tracker)

    def check(self, typed: frozenset[str]) -> None:
        """Raise `UserError` for options that cannot be combined. Tasks override it.

        Args:
            typed: The names of the options that were typed.
        """

    def lengths(self) -> dict[str, str]:
        """The settings that measure a run's length: name to the reason why a resume may not increase it, or ""."""
        return {}
