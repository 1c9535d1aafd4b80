"""A simulator of pipeline schedules, action by action: when each stage does what, how long a step takes, what it holds.

A stage does its actions in a fixed order, each as soon as the one before it has ended and what it needs has arrived:

    F   forward pass                                    needs the activations of the stage below
    B   gradients of weights and of the input at once   needs the gradient from the stage above
    I   gradient of the input                           needs the same
    W   gradients of the weights                        needs its own I; under DFA the error of its microbatch

An activation or gradient takes `send` from a stage to its neighbour, and a link carries one at a time in each
direction. The error takes `broadcast` from the last stage to all others, and one follows another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tinydfa.pipelining.order import order

Actions = list[tuple[str, int]]  # kind and microbatch


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long everything takes, in any one unit; a number for all stages, or one for each."""

    forward: float | Sequence[float] = 1.0
    weights: float | Sequence[float] = 1.0
    inputs: float | Sequence[float] = 1.0
    send: float = 0.0
    broadcast: float = 0.0
    update: float | Sequence[float] = 0.0  # of a stage's weights, at the end of its step

    def of(self, kind: str, stage: int) -> float:
        """How long an action takes at a stage; "U" is the update."""
        if kind == "B":
            return self.of("I", stage) + self.of("W", stage)
        given = {"F": self.forward, "W": self.weights, "I": self.inputs, "U": self.update}[kind]
        return float(given if isinstance(given, int | float) else given[stage])


class Done(NamedTuple):
    """An action that took place."""

    stage: int
    step: int
    kind: str
    microbatch: int
    start: float
    end: float


@dataclass(frozen=True)
class Schedule:
    """A way to train in a pipeline."""

    label: str
    actions: Callable[[int, int, int], Actions]  # of P, M and the stage
    broadcasts: bool = False  # W waits for the error of its microbatch
    flushes: bool = False  # no stage begins a step before all have ended the one before
    replays: bool = False  # W runs forward once more, and no graph is held until then


def one_f_one_b(stages: int, microbatches: int, stage: int) -> Actions:
    """1F1B (Narayanan et al. 2021, arXiv 2104.04473): P - s forward passes, then a backward pass after each."""
    ahead = min(stages - stage, microbatches)
    actions = [("F", number) for number in range(ahead)]
    for number in range(microbatches):
        actions.append(("B", number))
        if number + ahead < microbatches:
            actions.append(("F", number + ahead))
    return actions


def zero_bubble(stages: int, microbatches: int, stage: int) -> Actions:
    """ZB-H1 (Qi et al. 2024, arXiv 2401.10241): 1F1B with W put off by s microbatches, to where it would wait."""
    actions: Actions = []
    for kind, number in one_f_one_b(stages, microbatches, stage):
        actions.append((kind if kind == "F" else "I", number))
        if kind == "B" and number >= stage:
            actions.append(("W", number - stage))
    return actions + [("W", number) for number in range(max(microbatches - stage, 0), microbatches)]


def direct(overlap: bool = True, local: bool = False) -> Callable[[int, int, int], Actions]:
    """The order of `tinydfa.pipelining`."""
    return lambda stages, microbatches, stage: [
        (kind, number) for kind, number in order(stages, microbatches, stage, overlap=overlap, local=local)
    ]


SCHEDULES = {
    "1f1b": Schedule("BP, 1F1B", one_f_one_b),
    "zb-h1": Schedule("BP, ZB-H1", zero_bubble),
    "dfa flush": Schedule("DFA, flush", direct(overlap=False), broadcasts=True, flushes=True),
    "dfa overlap": Schedule("DFA, overlapped", direct(), broadcasts=True),
    "dfa replay": Schedule("DFA, overlapped, replay", direct(), broadcasts=True, replays=True),
    "drtp": Schedule("DRTP", direct(local=True)),
}


def closed_form(name: str, stages: int, microbatches: int) -> float:
    """Units that a step takes where F, W and I are one unit each, W of a replay two, and sending takes no time."""
    p, m = stages, microbatches
    return {
        "1f1b": 3 * (m + p - 1),
        "zb-h1": 3 * m + p - 1,
        "dfa flush": 2 * m + p - 1,
        "dfa overlap": 2 * m + max(0, p - m),
        "dfa replay": 3 * m + max(0, p - m),
        "drtp": 2 * m,
    }[name]


class Simulation:
    """Some steps of a schedule.

    Every stage has a fixed order of actions, and a message on a link comes after the one before it. So an action starts
    at the later of two times: when the one before it has ended, and when what it needs has arrived. Each stage is
    carried on as far as these are known, again and again, until all have ended.

    Args:
        schedule: Which.
        stages: P.
        microbatches: M, of each step.
        times: How long everything takes.
        steps: How many; the first begins with an idle pipeline.

    Attributes:
        done: All that took place, in order of its end.
        most: The most microbatches that each stage held at once, from the start of F to the end of B or W.
        ends: When each stage had ended each step, its update left out, by stage.
        now: When all had ended.
    """

    def __init__(self, schedule: Schedule, stages: int, microbatches: int, times: Times, steps: int = 1) -> None:
        self.schedule, self.stages, self.times, self.steps = schedule, stages, times, steps
        self.most = [0] * stages
        self.ends: list[list[float]] = [[] for _ in range(stages)]
        self.now = 0.0
        self._actions = [schedule.actions(stages, microbatches, stage) for stage in range(stages)]
        self._takes = [{kind: times.of(kind, stage) for kind in "FBIWU"} for stage in range(stages)]
        self._trace: list[tuple[int, int, str, int, float, float]] = []
        self._arrivals: list[dict[str, list[float]]] = [defaultdict(list) for _ in range(stages)]  # of the step
        self._errors: list[float] = []  # when those of the step have come to all
        self._free: dict[tuple[int, int], float] = defaultdict(float)  # when a link can carry the next message
        begin = [0.0] * stages
        for step in range(steps):
            begin = self._run_step(step, begin)
            if schedule.flushes:
                begin = [max(begin)] * stages
        self.now = max(begin)

    @property
    def done(self) -> list[Done]:
        return [Done(*each) for each in sorted(self._trace, key=lambda each: each[5])]

    @property
    def step_time(self) -> float:
        """How long the last step took, from the end of the one before it, at the slowest stage."""
        last = [ends[-1] for ends in self.ends]
        if self.steps == 1:
            return max(last)
        return max(end - ends[-2] for end, ends in zip(last, self.ends, strict=True))

    def _run_step(self, step: int, begin: list[float]) -> list[float]:
        """One step of all stages, which begin at these times; returns when they are free again."""
        now, place, held = list(begin), [0] * self.stages, [0] * self.stages
        self._errors.clear()
        for arrivals in self._arrivals:
            arrivals.clear()
        waiting = True
        while waiting:
            waiting = False
            upwards = range(self.stages)
            for stage in upwards if self.schedule.broadcasts else [*upwards, *reversed(upwards)]:
                now[stage], place[stage] = self._carry_on(stage, step, now[stage], place[stage], held)
                waiting = waiting or place[stage] < len(self._actions[stage])
        for stage in range(self.stages):
            self.ends[stage].append(now[stage])
            now[stage] += self._takes[stage]["U"]
        return now

    def _carry_on(self, stage: int, step: int, now: float, place: int, held: list[int]) -> tuple[float, int]:
        """Do what can be done of a stage's actions; returns when it is free and where it is."""
        actions, takes, arrivals, trace = self._actions[stage], self._takes[stage], self._arrivals[stage], self._trace
        while place < len(actions):
            kind, microbatch = actions[place]
            need = self._need(stage, kind)
            if need is not None:
                known = self._errors if need == "error" else arrivals[need]
                if len(known) <= microbatch:
                    break
                now = max(now, known[microbatch])
            if kind == "F":
                held[stage] += 1
                self.most[stage] = max(self.most[stage], held[stage])
            start, now = now, now + takes[kind]
            trace.append((stage, step, kind, microbatch, start, now))
            if kind in "BW":
                held[stage] -= 1
            self._pass_on(stage, kind, now)
            place += 1
        return now, place

    def _need(self, stage: int, kind: str) -> str | None:
        """What an action waits for, beside the one before it."""
        last = self.stages - 1
        if kind == "F":
            return "activation" if stage > 0 else None
        if kind in "BI":
            return "gradient" if stage < last else None
        return "error" if self.schedule.broadcasts and stage < last else None

    def _pass_on(self, stage: int, kind: str, now: float) -> None:
        """Send what an action has made: an activation upwards, the error to all, or a gradient downwards."""
        last = self.stages - 1
        if kind == "F" and stage < last:
            arrival = self._carried((stage, stage + 1), now, self.times.send)
            self._arrivals[stage + 1]["activation"].append(arrival)
        elif kind == "F" and self.schedule.broadcasts:
            self._errors.append(self._carried((last, last), now, self.times.broadcast))
        elif kind in "BI" and stage > 0:
            self._arrivals[stage - 1]["gradient"].append(self._carried((stage, stage - 1), now, self.times.send))

    def _carried(self, link: tuple[int, int], now: float, time: float) -> float:
        """When a message that goes out now over a link has arrived."""
        self._free[link] = max(now, self._free[link]) + time
        return self._free[link]


def simulate(name: str, stages: int, microbatches: int, times: Times | None = None, steps: int = 1) -> Simulation:
    """Simulate a schedule by its name in `SCHEDULES`; without `times`, F, W and I take a unit each, W of a replay two.

    Example:
        >>> [simulate(name, stages=2, microbatches=4, steps=3).step_time for name in SCHEDULES]
        [15.0, 13.0, 9.0, 8.0, 12.0, 8.0]
    """
    schedule = SCHEDULES[name]
    return Simulation(schedule, stages, microbatches, times or Times(weights=1.0 + schedule.replays), steps)
