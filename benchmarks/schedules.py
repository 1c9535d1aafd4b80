"""A simulator of pipeline schedules, event by event: when each stage does what, how long a step takes, what it holds.

A stage does its actions in a fixed order, each as soon as the one before it has ended and what it needs has arrived:

    F   forward pass                                    needs the activations of the stage below
    B   gradients of weights and of the input at once   needs the gradient from the stage above
    I   gradient of the input                           needs the same
    W   gradients of the weights                        needs its own I; under DFA the error of its microbatch

An activation or gradient takes `send` from a stage to its neighbour, and a link carries one at a time in each
direction. The error takes `broadcast` from the last stage to all others, and one follows another.
"""

from __future__ import annotations

import heapq
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
    "drtp": Schedule("DRTP", direct(local=True)),
}


def closed_form(name: str, stages: int, microbatches: int) -> float:
    """Units that a step takes where F, W and I are one unit each and sending takes no time."""
    p, m = stages, microbatches
    return {
        "1f1b": 3 * (m + p - 1),
        "zb-h1": 3 * m + p - 1,
        "dfa flush": 2 * m + p - 1,
        "dfa overlap": 2 * m + max(0, p - m),
        "drtp": 2 * m,
    }[name]


class Simulation:
    """Some steps of a schedule.

    Args:
        schedule: Which.
        stages: P.
        microbatches: M, of each step.
        times: How long everything takes.
        steps: How many; the first begins with an idle pipeline.

    Attributes:
        done: All that took place, in order of its end.
        most: The most microbatches that each stage held at once, from the start of F to the end of B or W.
    """

    def __init__(self, schedule: Schedule, stages: int, microbatches: int, times: Times, steps: int = 1) -> None:
        self.schedule, self.stages, self.times, self.steps = schedule, stages, times, steps
        self.actions = [schedule.actions(stages, microbatches, stage) for stage in range(stages)]
        self._takes = [{kind: times.of(kind, stage) for kind in "FBIWU"} for stage in range(stages)]
        self.done: list[Done] = []
        self.most, self._held = [0] * stages, [0] * stages
        self._place = [(0, 0)] * stages  # step and number of the next action
        self._busy = [False] * stages
        self._arrived: list[set[tuple[str, int, int]]] = [set() for _ in range(stages)]
        self._free: dict[tuple[int, int], float] = defaultdict(float)  # when a link can carry the next message
        self._ended = [0] * steps  # stages that have ended the step
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.now = 0.0
        self._run()

    @property
    def step_time(self) -> float:
        """How long the last step took, from the end of the one before it, at the slowest stage."""
        last = [max(d.end for d in self.done if d.stage == s and d.step == self.steps - 1) for s in range(self.stages)]
        if self.steps == 1:
            return max(last)
        before = [
            max(d.end for d in self.done if d.stage == s and d.step == self.steps - 2) for s in range(self.stages)
        ]
        return max(end - start for end, start in zip(last, before, strict=True))

    def _run(self) -> None:
        for stage in range(self.stages):
            self._begin(stage)
        while self._events:
            self.now, _, happen = heapq.heappop(self._events)
            happen()

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, happen))

    def _begin(self, stage: int) -> None:
        """Start a stage's next action, if it is free and what the action needs is there."""
        step, number = self._place[stage]
        if self._busy[stage] or step == self.steps:
            return
        kind, microbatch = self.actions[stage][number]
        need = self._need(stage, kind)
        if need is not None and (need, step, microbatch) not in self._arrived[stage]:
            return
        if self.schedule.flushes and step > 0 and self._ended[step - 1] < self.stages:
            return
        self._arrived[stage].discard((need or "", step, microbatch))
        if kind == "F":
            self._held[stage] += 1
            self.most[stage] = max(self.most[stage], self._held[stage])
        self._busy[stage] = True
        start, end = self.now, self.now + self._takes[stage][kind]
        self._at(end, lambda: self._end(Done(stage, step, kind, microbatch, start, end), number))

    def _need(self, stage: int, kind: str) -> str | None:
        """What an action waits for, beside the one before it."""
        last = self.stages - 1
        if kind == "F":
            return "activation" if stage > 0 else None
        if kind in "BI":
            return "gradient" if stage < last else None
        return "error" if self.schedule.broadcasts and stage < last else None

    def _end(self, done: Done, number: int) -> None:
        self.done.append(done)
        stage = done.stage
        if done.kind == "F":
            self._pass_on(done)
        elif done.kind in "BI" and stage > 0:
            self._send(stage, stage - 1, "gradient", done)
        if done.kind in "BW":
            self._held[stage] -= 1
        self._busy[stage] = False
        if number + 1 < len(self.actions[stage]):
            self._place[stage] = done.step, number + 1
            self._begin(stage)
            return
        self._busy[stage] = True
        self._at(self.now + self._takes[stage]["U"], lambda: self._end_step(stage, done.step))

    def _end_step(self, stage: int, step: int) -> None:
        self._busy[stage] = False
        self._place[stage] = step + 1, 0
        self._ended[step] += 1
        for other in range(self.stages) if self.schedule.flushes else [stage]:
            self._begin(other)

    def _pass_on(self, done: Done) -> None:
        """Send an activation upwards, or the error to all."""
        last = self.stages - 1
        if done.stage < last:
            self._send(done.stage, done.stage + 1, "activation", done)
        elif self.schedule.broadcasts:
            arrival = self._carried((last, last), self.times.broadcast)
            self._at(arrival, lambda: self._arrive_below(done))

    def _send(self, sender: int, receiver: int, what: str, done: Done) -> None:
        arrival = self._carried((sender, receiver), self.times.send)
        self._at(arrival, lambda: self._arrive(receiver, what, done))

    def _carried(self, link: tuple[int, int], time: float) -> float:
        """When a message that goes out now over a link has arrived."""
        self._free[link] = max(self.now, self._free[link]) + time
        return self._free[link]

    def _arrive_below(self, done: Done) -> None:
        """The error of a microbatch has come to all stages below the last."""
        for stage in range(self.stages - 1):
            self._arrive(stage, "error", done)

    def _arrive(self, stage: int, what: str, done: Done) -> None:
        self._arrived[stage].add((what, done.step, done.microbatch))
        self._begin(stage)


def simulate(name: str, stages: int, microbatches: int, times: Times | None = None, steps: int = 1) -> Simulation:
    """Simulate a schedule by its name in `SCHEDULES`.

    Example:
        >>> [simulate(name, stages=2, microbatches=4, steps=3).step_time for name in SCHEDULES]
        [15.0, 13.0, 9.0, 8.0, 8.0]
    """
    return Simulation(SCHEDULES[name], stages, microbatches, times or Times(), steps)
