"""What the training commands of every task share: where a run takes its data, where it runs and writes, its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from harness.errors import UserError
from harness.methods import known, named, rule_of
from harness.results import make_result
from harness.run import Run
from harness.seeds import check_seed

# The type of an argument that a command inherits and has no use for: it is no option there.
Unused = tyro.conf.Suppress[tyro.conf.Fixed[Any]]
REPLAY = "replay"
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
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


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """The argument of the `train` commands whose models can free the graphs of a forward pass."""

    memory: str | None = None
    """What a forward pass keeps: replay, one block at a time, and the model runs forward again when the error is known;
    or as many of the topmost blocks as fit in so many bytes, such as 800M or 2G. Everything if left out."""

    def keeps(self, method: str) -> str | int | None:
        """`memory=` of `tinydfa.attach`.

        Raises:
            UserError: it is neither, or `method` cannot train without the graphs, or the model is to be compiled.
        """
        if self.memory is None:
            return None
        choice = REPLAY if self.memory == REPLAY else bytes_of(self.memory)
        if getattr(self, "compile", False):
            raise UserError(f"--memory {self.memory} runs a model block by block, --compile as a whole. Leave one out.")
        from tinydfa import DFAError
        from tinydfa.memory import refuse_rule

        try:
            refuse_rule(choice, rule_of(method))
        except DFAError as error:
            raise UserError(f"--memory {self.memory}: {error}") from error
        return choice


def bytes_of(text: str) -> int:
    """A number of bytes, such as 4096, 64K, 800M or 2G.

    Raises:
        UserError: it is none.
    """
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in UNITS else (text, "")
    if not number.isdecimal():
        raise UserError(f"--memory {text}: give replay, or a number of bytes such as 800M or 2G.")
    return int(number) * UNITS.get(unit, 1)


def conclude(
    task: str,
    run: Run | None,
    settings: dict[str, Any],
    *,
    model: str,
    metrics: dict[str, float],
    curves: dict[str, Any],
    device: Any,
    seconds: float,
) -> dict[str, Any]:
    """The result of a training: written and printed by its `run` if there is one, else only returned.

    Args:
        task: The task's folder.
        run: The run, or None.
        settings: All that decided the run; "dataset", "method" and "seed" among it.
        model: What was trained, by its name on the command line.
        metrics: Name to number.
        curves: Numbers per epoch, for figures.
        device: Where it ran.
        seconds: How long it took.
    """
    about = {name: settings[name] for name in ("dataset", "method", "seed")}
    about |= {"model": model, "metrics": metrics, "curves": curves, "device": device}
    if run is not None:
        return run.finish(**about)
    return make_result(task=task, config=settings, seconds=seconds, **about)
