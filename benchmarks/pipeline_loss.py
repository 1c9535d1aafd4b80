"""Loss by wall clock on two stages: `torchrun --nproc-per-node 2 -m benchmarks.pipeline_loss`.

The language model at its small settings is trained for the same steps, one stage and one thread a process:

    bp        backpropagation by torch's 1F1B
    dfa       DFA, overlapped: no stage waits for a backward pass
    fitted    the same with feedback that is fitted to backpropagation in one step of 1F1B in a hundred

None clips its gradients: the norm of all of them needs all stages. Each run has a folder below ``--runs`` and goes on
from its last checkpoint when the command is given again, with the same numbers; a finished one is not run again. The
time of a validation is the mean time of a step, validations left out, times its steps. The last line is JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.environment import save
from harness import processes
from harness.errors import UserError
from harness.methods import colour, label
from harness.processes import started
from harness.run.run import Run
from nlp.config import Config as TrainConfig
from nlp.presets import OURS, Preset
from nlp.text.load import Corpus
from nlp.train import load, train

PRESETS = {"bp": "small_bp_ours", "dfa": "small_ours", "fitted": "small_ours"}
TINY: dict[str, Any] = {"layers": 2, "d_model": 16, "d_ff": 24, "heads": 2, "chunk": 8, "batch": 8}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train a language model on several stages by 1F1B, by DFA, and by fitted feedback."""

    dataset: str = "docs"
    """The text, as of nlp.train."""
    data_dir: Path | None = None
    """Where it is; $DFA_DATA if left out."""
    methods: tuple[str, ...] = tuple(PRESETS)
    """What trains: bp, dfa, fitted, or another broadcasting rule, with DFA's settings."""
    steps: int = 1000
    """Steps of each."""
    validate_every: int = 100
    """Steps between validations."""
    microbatches: int = 4
    """M."""
    seed: int = 0
    """Of weights, feedback and dropout."""
    runs: Path = Path("runs/pipeline_loss")
    """The runs' folders are below this one."""
    quick: bool = False
    """Tiny sizes, to see that it runs."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""
    figure: Path | None = None
    """Draw loss over steps and over seconds to this file."""

    def __post_init__(self) -> None:
        for name in ("steps", "validate_every", "microbatches"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)}: give at least 1.")
        if "bp" not in self.methods:
            raise UserError("--methods has no bp, to which the others are compared. Add it.")

    def preset(self, method: str) -> Preset:
        """The settings of one run."""
        lengths: dict[str, Any] = {"steps": self.steps, "validate_every": self.validate_every, "clip_norm": math.inf}
        base = OURS[PRESETS.get(method, PRESETS["dfa"])]
        return replace(base, method=method, patience=10**6, **lengths, **(TINY if self.quick else {}))

    def training(self, method: str) -> TrainConfig:
        """The same as options of `nlp.train`."""
        return TrainConfig(
            preset=self.preset(method),
            dataset=self.dataset,
            data_dir=self.data_dir,
            seed=self.seed,
            device="cpu",
            pipeline=started(),
            microbatches=self.microbatches,
            overlap=method != "bp",
            checkpoint_every=self.validate_every,
        )


def trained(method: str, config: Config, corpus: Corpus) -> dict[str, Any]:
    """The result of one run: of a finished one what it left, of another what it comes to."""
    settings = config.training(method)
    name = f"{method.replace('/', '-')}-{config.seed}"
    folder = config.runs / name
    about = settings.settings() | {"device": "cpu"}
    with Run("nlp", name, about, folder, resume=True, may_change=settings.may_change) as run:
        done = processes.current().gather((folder / "result.json").is_file())[0]
        if done:
            found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            return found
        return train(settings, run, corpus)


def row(method: str, result: dict[str, Any], config: Config) -> dict[str, Any]:
    """The numbers of one run."""
    preset, metrics = config.preset(method), result["metrics"]
    step = preset.batch * preset.chunk / metrics["tokens_per_second"]
    return {
        "method": label(method),
        "schedule": "1F1B" if method == "bp" else "DFA, overlapped",
        "steps": metrics["steps"],
        "ms a step": round(step * 1e3, 2),
        "validation loss": round(result["curves"]["val_loss"][-1], 4),
        "test perplexity": round(metrics["test_perplexity"], 3),
        "seconds": round(step * metrics["steps"], 1),
    }


def reached(losses: Sequence[float], seconds: Sequence[float], aim: float) -> float | None:
    """When a loss first came down to `aim`, on straight lines between validations; None: never.

    Example:
        >>> reached([5.0, 4.0, 3.0], [10.0, 20.0, 30.0], 3.5), reached([5.0, 4.0], [1.0, 2.0], 3.0)
        (25.0, None)
    """
    for number, loss in enumerate(losses):
        if loss > aim:
            continue
        if number == 0:
            return seconds[0]
        before, start = losses[number - 1], seconds[number - 1]
        return start + (seconds[number] - start) * (before - aim) / (before - loss)
    return None


def study(config: Config, corpus: Corpus) -> tuple[list[dict[str, Any]], dict[str, dict[str, list[float]]]]:
    """Train all; returns the table's rows, and the curves by method: step, seconds, val_loss."""
    rows, curves = [], {}
    for method in config.methods:
        result = trained(method, config, corpus)
        rows.append(row(method, result, config))
        steps, losses = result["curves"]["step"], result["curves"]["val_loss"]
        seconds = [step * rows[-1]["ms a step"] / 1e3 for step in steps]
        curves[method] = {"step": steps, "seconds": seconds, "val_loss": losses}
    aim = max(curve["val_loss"][-1] for curve in curves.values())  # which all of them reach
    for line, curve in zip(rows, curves.values(), strict=True):
        when = reached(curve["val_loss"], curve["seconds"], aim)
        line[f"seconds to a loss of {aim:.3f}"] = None if when is None else round(when, 1)
    return rows, curves


def draw(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Validation loss over steps and over seconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axis, over, name in zip(axes, ("step", "seconds"), ("steps", "seconds of training"), strict=True):
        for method, curve in curves.items():
            axis.plot(curve[over], curve["val_loss"], marker="o", ms=3, color=colour(method), label=label(method))
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("validation loss, nats a token")
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(config: Config) -> None:
    """Train, print the table and the line of JSON, and write what was asked for."""
    if started() < 2:
        raise UserError(
            "a pipeline has two processes or more. Start it by torchrun --nproc-per-node 2 -m benchmarks.pipeline_loss."
        )
    import torch

    torch.set_num_threads(1)
    processes.join("cpu")
    corpus = load(config.training("bp"))
    rows, curves = study(config, corpus)
    if processes.current().is_main:
        report(config, rows, curves)
    processes.leave()


def report(config: Config, rows: list[dict[str, Any]], curves: dict[str, dict[str, list[float]]]) -> None:
    """Print the table and the line of JSON; write the files that were asked for."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], title=f"{started()} stages, {config.microbatches} microbatches, {config.dataset}")
    for line in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in line.values()))
    Console(width=140).print(table)
    if config.out is not None:
        save(config.out, "cpu", rows)
        content = json.loads(config.out.read_text(encoding="utf-8")) | {"curves": curves}
        config.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if config.figure is not None:
        draw(curves, config.figure)
    print(json.dumps({"benchmark": "pipeline_loss", "stages": started(), "rows": rows, "curves": curves}), flush=True)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
