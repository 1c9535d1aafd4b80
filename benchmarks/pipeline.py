"""A training step in a pipeline, backpropagation against DFA: `torchrun --nproc-per-node 2 -m benchmarks.pipeline`.

The same stages, wide layers with a feedback point after each, are trained by torch's 1F1B and zero-bubble schedules and
by DFA: with a flush, overlapped, and overlapped with replay within a stage. Each process has one stage and one thread.
The schedules take turns in one run, some steps each, and a ratio is the median over rounds of the ratio within a round.
The work of each stage is timed as well, and the simulator (`benchmarks.schedules`) says from it how long a step should
take. At the end a step of each is run once more to count what its graphs hold.

The last line is JSON; ``--figure`` draws one turn of each schedule as it was measured and as it is simulated.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleavedZeroBubble
from torch.nn import functional as F

from benchmarks.environment import environment, save
from benchmarks.schedules import SCHEDULES, Done, Simulation, Times, closed_form, simulate
from benchmarks.timelines import draw
from harness.errors import UserError
from harness.processes import started
from tinydfa.pipelining import ScheduleDFA

NAMES = ("1f1b", "zb-h1", "dfa flush", "dfa overlap", "dfa replay")
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


class Turn(NamedTuple):
    """Some steps of one schedule, as one stage saw them."""

    seconds: float  # a step
    done: list[tuple[str, float, float]]  # kind of work, start and end since the turn began


class Saved:
    """Counts the bytes of what graphs have saved, each place in memory once.

    Args:
        apart: Places that do not count.
    """

    def __init__(self, apart: set[int]) -> None:
        self.apart, self.most = apart, 0
        self.holders: dict[int, tuple[int, int]] = {}  # how many hold a place, and its bytes

    def pack(self, tensor: Tensor) -> Keeper:
        return Keeper(self, tensor.detach())  # with its graph it would hold itself

    def count(self, place: int, size: int, holders: int) -> None:
        """One more or one less holds a place in memory."""
        if place in self.apart:
            return
        number = self.holders.get(place, (0, 0))[0] + holders
        self.holders[place] = number, size
        if number == 0:
            del self.holders[place]
        elif holders > 0:
            self.most = max(self.most, sum(size for _, size in self.holders.values()))


class Keeper:
    """A saved tensor, for as long as its graph is there."""

    def __init__(self, saved: Saved, tensor: Tensor) -> None:
        self.saved, self.tensor = saved, tensor
        storage = tensor.untyped_storage()
        self.about = storage.data_ptr(), storage.nbytes()
        saved.count(*self.about, 1)

    def tensor_of(self) -> Tensor:
        return self.tensor

    def __del__(self) -> None:
        self.saved.count(*self.about, -1)


class Contestant:
    """One schedule on a stage of its own.

    Attributes:
        done: What the stage did in its last turn: kind of work ("U" is the optimiser's), start and end in seconds.
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
        self.done: list[tuple[str, float, float]] = []
        self._watch()

    def _schedule(self) -> Any:
        number = self.config.microbatches
        if self.name == "1f1b":
            return Schedule1F1B(self.stage, number, F.cross_entropy)
        if self.name == "zb-h1":
            return ScheduleInterleavedZeroBubble([self.stage], number, F.cross_entropy)
        points = [name for name, part in self.module.named_children() if isinstance(part, nn.ReLU)]
        options: dict[str, Any] = {"overlap": self.name != "dfa flush"}
        options |= {"memory": "replay"} if self.name == "dfa replay" else {}
        return ScheduleDFA(self.stage, number, F.cross_entropy, points=points, **options)

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
            self.done.append((kind, start, time.perf_counter()))
            return found

        return timed

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad()
        if self.stage.is_last:
            self.schedule.step(target=self.y, losses=[], return_outputs=False)
        else:
            self.schedule.step(*([self.x] if self.stage.is_first else []), return_outputs=False)
        self._timed("U", self.optimizer.step)()

    def graphs(self) -> float:
        """The most MiB that graphs hold at once in a step, beside weights and what comes in."""
        saved = Saved({weight.untyped_storage().data_ptr() for weight in self.module.parameters()})
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, Keeper.tensor_of):
            self.step()
        dist.barrier()
        return saved.most / 2**20

    def turn(self) -> Turn:
        """Some steps in a row that begin and end with all stages idle."""
        self.done = []
        dist.barrier()
        begin = time.perf_counter()
        for _ in range(self.config.steps):
            self.step()
        dist.barrier()
        seconds = (time.perf_counter() - begin) / self.config.steps
        return Turn(seconds, [(kind, start - begin, end - begin) for kind, start, end in self.done])


def stage_module(config: Config, rank: int, stages: int) -> nn.Sequential:
    """Linear and ReLU in turn; on the last stage a linear layer above them."""
    torch.manual_seed(rank)
    parts: list[nn.Module] = []
    for _ in range(config.layers):
        parts += [nn.Linear(config.width, config.width), nn.ReLU()]
    if rank == stages - 1:
        parts.append(nn.Linear(config.width, CLASSES))
    return nn.Sequential(*parts)


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[Turn]]:
    """A turn of every schedule in every round; the order rotates."""
    names = list(contestants)
    for name in names:
        contestants[name].turn()
    turns: dict[str, list[Turn]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turns[name].append(contestants[name].turn())
    return turns


def ratio(times: dict[str, list[float]], name: str) -> float:
    """To 1F1B's step: the median over rounds of the ratio within a round."""
    return statistics.median(mine / theirs for mine, theirs in zip(times[name], times["1f1b"], strict=True))


def work_of(turn: Turn) -> dict[str, float]:
    """Seconds of each kind of work in a turn: the mean, for the step's time is a sum."""
    kinds = sorted({kind for kind, *_ in turn.done})
    return {kind: statistics.mean(end - start for k, start, end in turn.done if k == kind) for kind in kinds}


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


def simulated(name: str, config: Config, turns: Sequence[Turn], send: float, error: float) -> Simulation:
    """The same turn, from what each stage's work took in it."""
    work = [work_of(turn) for turn in turns]
    times = Times(
        forward=[stage["F"] for stage in work],
        weights=[stage.get("W", stage.get("B", 0.0) / 2) for stage in work],
        inputs=[stage.get("I", stage.get("B", 0.0) / 2) for stage in work],
        send=send,
        broadcast=error,
        update=[stage["U"] for stage in work],
    )
    return simulate(name, len(turns), config.microbatches, times, steps=config.steps)


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
    turns = gathered(measure(contestants, config.rounds))
    graphs = gathered({name: contestants[name].graphs() for name in NAMES})
    send = max(gathered(send_time((config.rows, config.width), rank)))
    error = max(gathered(send_time((config.rows, CLASSES), rank)))
    if rank == 0:
        report(
            config,
            {name: [list(each) for each in zip(*[t[name] for t in turns], strict=True)] for name in NAMES},
            {name: [of_stage[name] for of_stage in graphs] for name in NAMES},
            send,
            error,
        )
    dist.barrier()
    dist.destroy_process_group()


def row(
    name: str, config: Config, rounds: list[list[Turn]], times: dict[str, list[float]], send: float, error: float
) -> dict[str, Any]:
    """The numbers of one schedule.

    Args:
        name: Which.
        config: Sizes.
        rounds: Its turns, by round and stage.
        times: Seconds a step of all schedules, by round.
        send: Seconds of a message to a neighbour.
        error: Seconds of the error's.
    """
    stages = len(rounds[0])
    units = closed_form(name, stages, config.microbatches) / closed_form("1f1b", stages, config.microbatches)
    expected = [simulated(name, config, turns, send, error).now / config.steps for turns in rounds]
    work = [work_of(turn) for turn in rounds[-1]]
    said = " ".join("+".join(f"{kind} {seconds * 1e3:.1f}" for kind, seconds in stage.items()) for stage in work)
    return {
        "schedule": SCHEDULES[name].label,
        "ms a step": round(statistics.median(times[name]) * 1e3, 2),
        "ratio to 1F1B": round(ratio(times, name), 3),
        "counting units": round(units, 3),
        "target": TARGETS.get(name) if (stages, config.microbatches) == (2, 4) else None,
        "simulated ms": round(statistics.median(expected) * 1e3, 2),
        "measured / simulated": round(statistics.median(a / b for a, b in zip(times[name], expected, strict=True)), 3),
        "ms of work in the last turn": said,
    }


def report(
    config: Config, rounds: dict[str, list[list[Turn]]], graphs: dict[str, list[float]], send: float, error: float
) -> None:
    """Print the table and the line of JSON; write the files that were asked for.

    Args:
        config: Sizes.
        rounds: The turns of each schedule, by round and stage.
        graphs: MiB that the graphs of each hold at most, by stage.
        send: Seconds of a message to a neighbour.
        error: Seconds of the error's.
    """
    from rich.console import Console
    from rich.table import Table

    times = {name: [turns[0].seconds for turns in rounds[name]] for name in NAMES}
    rows = [row(name, config, rounds[name], times, send, error) for name in NAMES]
    for name, line in zip(NAMES, rows, strict=True):
        line["graphs, MiB a stage"] = " ".join(f"{size:.3g}" for size in graphs[name])
    stages = len(rounds["1f1b"][0])
    title = f"{stages} stages of {config.layers} x {config.width}, {config.microbatches} x {config.rows} samples"
    table = Table(*rows[0], title=title)
    for line in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in line.values()))
    Console(width=160).print(table)
    if config.out is not None:
        save(config.out, "cpu", rows)
    if config.figure is not None:
        draw(panels(config, rounds, send, error), config.figure, unit="seconds")
    about: dict[str, Any] = {"stages": stages, "microbatches": config.microbatches, "width": config.width}
    about |= {"layers": config.layers, "rows": config.rows, "threads a process": 1, "environment": environment("cpu")}
    print(json.dumps({"benchmark": "pipeline", **about, "schedules": rows}), flush=True)


def panels(
    config: Config, rounds: dict[str, list[list[Turn]]], send: float, error: float
) -> list[tuple[str, list[Done]]]:
    """The last turn of each schedule, as it was and as it is simulated."""
    found = []
    for name in NAMES:
        turns, label = rounds[name][-1], SCHEDULES[name].label
        measured = [
            Done(stage, 0, kind, 0, start, end)
            for stage, turn in enumerate(turns)
            for kind, start, end in turn.done
            if kind != "U"
        ]
        found.append((f"{label}, measured", measured))
        found.append((f"{label}, simulated", simulated(name, config, turns, send, error).done))
    return found


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
