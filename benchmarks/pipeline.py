"""A training step in a pipeline, backpropagation against DFA: `torchrun --nproc-per-node 2 -m benchmarks.pipeline`.

The same stages, wide layers with a feedback point after each, are trained by torch's 1F1B and zero-bubble schedules and
by DFA with a flush and overlapped. Each process has one stage and one thread. The schedules take turns in one run, some
steps each, and a ratio is the median over rounds of the ratio within a round. The work of each stage is timed as well,
and the simulator (`benchmarks.schedules`) says from it how long a step should take.

The last line is JSON; ``--figure`` draws one turn of each schedule as it was measured and as it is simulated.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleavedZeroBubble
from torch.nn import functional as F

from benchmarks.environment import environment, save
from benchmarks.schedules import SCHEDULES, Done, Times, closed_form, simulate
from benchmarks.timelines import draw
from harness.errors import UserError
from harness.processes import started
from tinydfa.pipelining import ScheduleDFA

NAMES = ("1f1b", "zb-h1", "dfa flush", "dfa overlap")
TARGETS = {"dfa flush": 0.68, "dfa overlap": 0.62}  # of 1F1B's step, with two stages and four microbatches
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time a training step of a pipeline by four schedules."""

    microbatches: int = 4
    """M."""
    width: int = 1024
    """Of every layer."""
    layers: int = 4
    """Of a stage."""
    rows: int = 256
    """Samples of a microbatch."""
    steps: int = 4
    """Steps of a turn."""
    rounds: int = 9
    """Turns of each schedule."""
    quick: bool = False
    """Small sizes, to see that it runs."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""
    figure: Path | None = None
    """Draw measured and simulated timelines to this file."""

    def __post_init__(self) -> None:
        for name in ("microbatches", "width", "layers", "rows", "steps", "rounds"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: give at least 1.")
        if self.quick:
            for name, value in {"width": 64, "layers": 2, "rows": 8, "rounds": 2}.items():
                object.__setattr__(self, name, value)


class Contestant:
    """One schedule on a stage of its own.

    Attributes:
        done: What the stage did, while it is watched.
    """

    def __init__(self, name: str, config: Config, rank: int, stages: int) -> None:
        self.name, self.rank, self.config = name, rank, config
        self.module = stage_module(config, rank, stages)
        self.stage = PipelineStage(self.module, rank, stages, torch.device("cpu"))
        self.schedule = self._schedule()
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=1e-4)
        torch.manual_seed(1)
        self.x = torch.randn(config.microbatches * config.rows, config.width)
        self.y = torch.randint(0, CLASSES, (len(self.x),))
        self.done: list[tuple[str, int, float, float]] | None = None
        self._watch()

    def _schedule(self) -> Any:
        number = self.config.microbatches
        if self.name == "1f1b":
            return Schedule1F1B(self.stage, number, F.cross_entropy)
        if self.name == "zb-h1":
            return ScheduleInterleavedZeroBubble([self.stage], number, F.cross_entropy)
        points = [name for name, part in self.module.named_children() if isinstance(part, nn.ReLU)]
        return ScheduleDFA(self.stage, number, F.cross_entropy, points=points, overlap=self.name == "dfa overlap")

    def _watch(self) -> None:
        """Note when the stage computes."""
        self.stage.forward_one_chunk = self._timed("F", self.stage.forward_one_chunk)  # type: ignore[method-assign]
        self.stage.backward_one_chunk = self._timed(  # type: ignore[method-assign]
            "I" if self.name == "zb-h1" else "B", self.stage.backward_one_chunk
        )
        self.stage.backward_weight_one_chunk = self._timed(  # type: ignore[method-assign]
            "W", self.stage.backward_weight_one_chunk
        )
        if isinstance(self.schedule, ScheduleDFA):
            self.schedule._add_gradients = self._timed("W", self.schedule._add_gradients)  # type: ignore[method-assign]

    def _timed(self, kind: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            found = work(*args, **kwargs)
            if self.done is not None:
                number = sum(1 for done in self.done if done[0] == kind)
                self.done.append((kind, number, start, time.perf_counter()))
            return found

        return timed

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        if self.stage.is_last:
            self.schedule.step(target=self.y, losses=[], return_outputs=False)
        else:
            self.schedule.step(*([self.x] if self.stage.is_first else []), return_outputs=False)
        self.optimizer.step()

    def turn(self) -> float:
        """Seconds a step, over some steps in a row that begin and end with all stages idle."""
        dist.barrier()
        begin = time.perf_counter()
        for _ in range(self.config.steps):
            self.step()
        dist.barrier()
        return (time.perf_counter() - begin) / self.config.steps


def stage_module(config: Config, rank: int, stages: int) -> nn.Sequential:
    """Linear and ReLU in turn; on the last stage a linear layer above them."""
    torch.manual_seed(rank)
    parts: list[nn.Module] = []
    for _ in range(config.layers):
        parts += [nn.Linear(config.width, config.width), nn.ReLU()]
    if rank == stages - 1:
        parts.append(nn.Linear(config.width, CLASSES))
    return nn.Sequential(*parts)


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of every schedule in every round; the order rotates."""
    names = list(contestants)
    for name in names:
        contestants[name].turn()
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(contestants[name].turn())
    return times


def ratio(times: dict[str, list[float]], name: str) -> float:
    """To 1F1B's step: the median over rounds of the ratio within a round."""
    return statistics.median(mine / theirs for mine, theirs in zip(times[name], times["1f1b"], strict=True))


def watched(contestant: Contestant) -> tuple[float, list[tuple[str, int, float, float]]]:
    """What this stage did in a turn, with the time at which the turn began."""
    contestant.done = []
    dist.barrier()
    begin = time.perf_counter()
    for _ in range(contestant.config.steps):
        contestant.step()
    found, contestant.done = contestant.done, None
    dist.barrier()
    return begin, found


def durations(done: list[tuple[str, int, float, float]]) -> dict[str, float]:
    """Seconds of each kind of work: the median."""
    kinds = {kind for kind, *_ in done}
    return {kind: statistics.median(end - start for k, _, start, end in done if k == kind) for kind in kinds}


def update_time(contestant: Contestant) -> float:
    """Seconds of a step of the optimiser."""
    found = []
    for _ in range(5):
        start = time.perf_counter()
        contestant.optimizer.step()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def send_time(shape: tuple[int, ...], rank: int) -> float:
    """Seconds from one stage to the next: half a journey there and back between the first two."""
    tensor, found = torch.zeros(shape), []
    for _ in range(7):
        dist.barrier()
        start = time.perf_counter()
        if rank == 0:
            dist.send(tensor, 1)
            dist.recv(tensor, 1)
        elif rank == 1:
            dist.recv(tensor, 0)
            dist.send(tensor, 0)
        found.append((time.perf_counter() - start) / 2)
    return statistics.median(found)


def simulated(
    name: str, config: Config, kinds: list[dict[str, float]], send: float, error: float, update: list[float]
) -> Any:
    """The same turn, from what each stage's work was measured to take."""
    times = Times(
        forward=[stage["F"] for stage in kinds],
        weights=[stage.get("W", stage.get("B", 0.0) / 2) for stage in kinds],
        inputs=[stage.get("I", stage.get("B", 0.0) / 2) for stage in kinds],
        send=send,
        broadcast=error,
        update=update,
    )
    return simulate(name, len(kinds), config.microbatches, times, steps=config.steps)


def gathered(value: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def main(config: Config) -> None:
    """Measure, compare with the simulator, and print."""
    if started() < 2:
        raise UserError(
            "a pipeline has two processes or more. Start it by torchrun --nproc-per-node 2 -m benchmarks.pipeline."
        )
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, stages = dist.get_rank(), dist.get_world_size()
    contestants = {name: Contestant(name, config, rank, stages) for name in NAMES}
    times = measure(contestants, config.rounds)
    send = max(gathered(send_time((config.rows, config.width), rank)))
    error = max(gathered(send_time((config.rows, CLASSES), rank)))
    rows, turns = [], {}
    for name in NAMES:
        update = gathered(update_time(contestants[name]))
        found = gathered(watched(contestants[name]))
        kinds = [durations(done) for _, done in found]
        simulation = simulated(name, config, kinds, send, error, update)
        turns[name] = (on_one_clock(found), simulation)
        rows.append(row(name, config, stages, times, simulation.now / config.steps, kinds))
    if rank == 0:
        report(config, stages, rows, turns)
    dist.barrier()
    dist.destroy_process_group()


def on_one_clock(found: list[tuple[float, list[tuple[str, int, float, float]]]]) -> list[Done]:
    """What all stages did, in seconds since each left the barrier before the turn."""
    return [
        Done(stage, 0, kind, number, start - begin, end - begin)
        for stage, (begin, done) in enumerate(found)
        for kind, number, start, end in done
    ]


def row(
    name: str,
    config: Config,
    stages: int,
    times: dict[str, list[float]],
    expected: float,
    kinds: list[dict[str, float]],
) -> dict[str, Any]:
    """The numbers of one schedule."""
    measured = statistics.median(times[name])
    units = closed_form(name, stages, config.microbatches) / closed_form("1f1b", stages, config.microbatches)
    return {
        "schedule": SCHEDULES[name].label,
        "ms a step": round(measured * 1e3, 2),
        "ratio to 1F1B": round(ratio(times, name), 3),
        "counting units": round(units, 3),
        "target": TARGETS.get(name) if (stages, config.microbatches) == (2, 4) else None,
        "simulated ms": round(expected * 1e3, 2),
        "measured / simulated": round(measured / expected, 3),
        "ms of work": " ".join(
            "+".join(f"{kind} {seconds * 1e3:.1f}" for kind, seconds in sorted(stage.items())) for stage in kinds
        ),
    }


def report(config: Config, stages: int, rows: list[dict[str, Any]], turns: dict[str, Any]) -> None:
    """Print the table and the line of JSON; write the files that were asked for."""
    from rich.console import Console
    from rich.table import Table

    title = f"{stages} stages of {config.layers} x {config.width}, {config.microbatches} x {config.rows} samples"
    table = Table(*rows[0], title=title)
    for line in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in line.values()))
    Console(width=160).print(table)
    if config.out is not None:
        save(config.out, "cpu", rows)
    if config.figure is not None:
        panels = []
        for name, (measured, simulation) in turns.items():
            panels += [(f"{SCHEDULES[name].label}, measured", measured)]
            panels += [(f"{SCHEDULES[name].label}, simulated", simulation.done)]
        draw(panels, config.figure, unit="s")
    about = {"stages": stages, "microbatches": config.microbatches, "width": config.width, "layers": config.layers}
    about |= {"rows": config.rows, "threads a process": 1, "environment": environment("cpu")}
    print(json.dumps({"benchmark": "pipeline", **about, "schedules": rows}), flush=True)


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
