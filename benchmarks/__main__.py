"""Everything that is timed, in one table: each method against backpropagation, and the project against its peers.

    python -m benchmarks --out results/benchmarks/all.json
    python -m benchmarks --parts core nlp torchfm --threads 1
    python -m benchmarks --device cuda --out results/benchmarks/all-cuda.json

What is compared: training steps on the same model, batch and optimiser, by contestants that take turns in one process.
Ratios are medians over rounds of the ratio within a round, and below 1 means faster.

    ratio to BP      to this project's backpropagation in the same run (the row called bp); biotorch: to plain torch's
    ratio to peer    of ours to the peer's row, where both train by the same method
    limit            what counting matrix products allows the ratio to BP; the rest of a step is not in it
    peak MiB         most that a step holds on top of what was there before it: weights and moments are not in it

What is not: accuracy, which is in the results of each task; data loading; compiled models, bf16 and whole epochs, which
`benchmarks.step_time`, `nlp_tokens`, `nerf_rays` and `vision_epoch` measure. Milliseconds of different models, and of
the same model in different parts, were taken at different moments. A peer that cannot run has a row that says why.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from benchmarks.contest import Row, measure, not_measured
from benchmarks.environment import environment, save
from benchmarks.methods import METHODS
from benchmarks.peers import alongside
from benchmarks.peers.process import PeerAbsentError, measure_elsewhere
from benchmarks.scale import Scale
from harness.device import pick_device
from harness.errors import UserError, writing

# nerf comes last: it changes how the process keeps memory, as its training does.
Part = Literal["core", "vision", "graphs", "recsys", "nlp", "torchfm", "deepctr", "biotorch", "pyg", "torch", "nerf"]
PARTS: tuple[Part, ...] = get_args(Part)
ALONGSIDE = {"torchfm": alongside.torchfm, "pyg": alongside.pyg, "torch": alongside.plain_torch}
TASKS = {"torchfm": "recsys", "deepctr": "recsys", "biotorch": "core", "pyg": "graphs", "torch": "nlp"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time each method against backpropagation, and the project against its peers."""

    parts: tuple[Part, ...] = PARTS
    """Tasks (all methods) and peers."""
    quick: bool = False
    """Small sizes, to see that it runs."""
    rounds: int = 7
    """Rounds of steps of each contestant; where steps are short, each round has several."""
    threads: int = 2
    """Threads that torch may use."""
    device: str = "cpu"
    """cpu, or cuda, which gets larger batches; peers that have a process of their own stay on the CPU."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError(f"--parts names nothing to measure. There are {', '.join(PARTS)}.")
        if self.rounds < 1 or self.threads < 1:
            raise UserError(f"--rounds {self.rounds} --threads {self.threads}: both must be at least 1.")


def rows_of(part: Part, scale: Scale, rounds: int) -> list[Row]:
    """The rows of a part; of a peer that cannot run, one that says why."""
    rows: list[Row] = []
    if part in METHODS:
        for contest in METHODS[part](scale):
            rows += measure(contest, rounds, scale.device)
        return rows
    try:
        if part not in ALONGSIDE:
            if scale.device != "cpu":
                raise PeerAbsentError("its own process runs on the CPU")
            return measure_elsewhere(part, scale.quick, rounds)
        for contest in ALONGSIDE[part](scale):
            rows += measure(contest, rounds, scale.device)
    except PeerAbsentError as reason:
        rows.append(not_measured(TASKS[part], part, str(reason)))
    except Exception as fault:  # whatever a peer does wrong with these versions is a finding about the peer
        rows.append(not_measured(TASKS[part], part, f"{type(fault).__name__}: {fault}"))
    return rows


def main(config: Config) -> None:
    """Measure part by part, and print the table."""
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(config.threads)
    if config.out is not None:
        with writing(config.out):  # better said now than in ten minutes
            config.out.parent.mkdir(parents=True, exist_ok=True)
    device = pick_device(config.device)
    scale = Scale(quick=config.quick, device=str(device))
    rows: list[Row] = []
    for part in PARTS:
        if part in config.parts:
            print(f"measuring {part}", file=sys.stderr)  # no spinner: it would take turns with what is timed
            rows += rows_of(part, scale, config.rounds)
    caption = "Ratios are medians over rounds of the ratio within a round, not quotients of the milliseconds shown."
    if config.quick:
        caption += " --quick: sizes too small to compare anything."
    where = f"{config.threads} thread(s)" if device.type == "cpu" else environment(scale.device)["device"]
    table = Table(*rows[0], title=f"A training step, {where}", caption=caption)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()))
    Console(width=180).print(table)
    if config.out is not None:
        save(config.out, scale.device, rows)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
