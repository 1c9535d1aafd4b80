"""Memory and step time of training without stored graphs: `python -m benchmarks.memory`.

    bp              backpropagation, which keeps every block's activations
    bp, checkpoint  the same with a checkpoint a block, which keeps every block's input and computes each twice
    dfa             keeps every block's activations
    dfa, replay     keeps one block's: the model runs forward again when the error is known
    dkp, replay     the same with feedback that learns in every backward pass
    fitted, replay  the same with feedback fitted by two forward passes with noise, one step in a hundred
    drtp, forward   keeps one block's, and needs no second run: the targets are known before the forward pass

Peak memory is what a forward and a backward pass allocate at most on top of what was there before, from the
allocator's record. Weights and gradients are there before; an optimiser that steps in the backward pass frees the
latter, too. Step times are of forward, backward and SGD, the contestants of a model taking turns; a ratio is the median
over rounds of the ratio within a round. The last line is JSON: every ratio, with its target where it has one.

Limits, counting matrix products: of each block backpropagation computes three (output, weight gradient, input
gradient), with a checkpoint four, DFA two, under replay three, DRTP in the forward pass two. Inside a block of a
Transformer input gradients are left to compute, and count as in backpropagation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.allocations import peak_bytes
from benchmarks.environment import save
from benchmarks.memory_picture import picture
from benchmarks.models import Block, loss, sgd_step
from benchmarks.step_time import show
from benchmarks.timing import Step, interleave, ratio
from harness.run.allocator import keep_freed_memory
from tinydfa import Rule, attach
from tinydfa.rules import ForwardFitted

WAYS: dict[str, tuple[str | Rule, str | int | None]] = {  # a method, and what a pass keeps
    "bp": ("bp", None),
    "bp, checkpoint": ("bp", "checkpoint"),
    "dfa": ("dfa", None),
    "dfa, replay": ("dfa", "replay"),
    "dkp, replay": ("dkp", "replay"),
    "fitted, replay": (ForwardFitted(probe_every=100, warm=0), "replay"),
    "drtp, forward": ("drtp", "forward"),
}
ENDS = "dfa, replay", "bp"
ROOM = 2 * 2**30  # bytes above the weights, for the question how deep a perceptron fits


class Blocks(nn.Module):
    """Blocks of one width between a first and a last layer."""

    def __init__(self, first: nn.Module, blocks: Sequence[nn.Module], top: nn.Module) -> None:
        super().__init__()
        self.first, self.blocks, self.top = first, nn.ModuleList(blocks), top
        self.checkpoints = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpoints else block(x)
        logits: Tensor = self.top(x)
        return logits


def perceptron(depth: int, width: int) -> Blocks:
    return Blocks(nn.Identity(), [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)],
                  nn.Linear(width, 10))  # fmt: skip


def transformer(depth: int, width: int, vocabulary: int = 256) -> Blocks:
    """On bytes, so that the vocabulary weighs little."""
    blocks = [Block(width, heads=max(width // 64, 1), hidden=4 * width) for _ in range(depth)]
    return Blocks(nn.Embedding(vocabulary, width), blocks, nn.Linear(width, vocabulary))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of model, its batch, its points and what its ratios should be."""

    name: str
    build: Callable[[int, int], Blocks]
    width: int
    batch: tuple[int, ...]
    points: tuple[str, ...]
    ways: tuple[str, ...]
    timed: int  # depth at which step times are taken
    targets: dict[str, float]

    def data(self) -> tuple[Tensor, Tensor]:
        if len(self.batch) == 2:
            return torch.randint(0, 256, self.batch), torch.randint(0, 256, self.batch)
        return torch.randn(*self.batch, self.width), torch.randint(0, 10, self.batch)


MACRO, MICRO = ("blocks.*",), ("blocks.*.norm1", "blocks.*.up", "blocks.*.norm2")
TRANSFORMER = ("bp", "bp, checkpoint", "dfa", "dfa, replay")
GROWTH = {"memory, replay over bp": 0.10, "memory, deepest over shallowest": 1.1}


def cases(quick: bool) -> list[Case]:
    width, batch, d, tokens = (16, 32, 64, (2, 8)) if quick else (512, 2048, 256, (16, 128))
    return [
        Case(
            name=f"MLP, {width} wide, batch {batch}", build=perceptron, width=width, batch=(batch,), points=MACRO,
            ways=tuple(WAYS), timed=16,
            targets=GROWTH | {"time, replay over bp": 1.08, "time, replay over checkpoint": 0.80,
                              "time, forward over bp": 0.72, "depth in 2 GiB, replay over bp": 8},
        ),
        Case(
            name=f"Transformer, d {d}, {tokens[0]} x {tokens[1]} tokens, points in blocks", build=transformer, width=d,
            batch=tokens, points=MICRO, ways=TRANSFORMER, timed=8,
            targets=GROWTH | {"time, replay over bp": 1.15, "time, replay over checkpoint": 0.88},
        ),
        Case(
            name=f"Transformer, d {d}, {tokens[0]} x {tokens[1]} tokens, a point a block", build=transformer, width=d,
            batch=tokens, points=MACRO, ways=TRANSFORMER, timed=8,
            targets=GROWTH | {"time, replay over bp": 1.33, "time, replay over checkpoint": 1.0},
        ),
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure memory over depth, and step times."""

    rounds: int = 9
    """Rounds of steps of each contestant."""
    depths: tuple[int, ...] = (8, 16, 32, 64)
    """Numbers of blocks at which memory is taken."""
    budgets: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Budgets of the curve, as shares of what DFA keeps."""
    cases: tuple[int, ...] = (0, 1, 2)
    """0: perceptron, 1: Transformer with points in blocks, 2: with a point a block."""
    threads: int = 2
    quick: bool = False
    """Small sizes, to see that it runs."""
    out: Path | None = None
    """Write the numbers to this JSON file as well, and a picture beside it."""


def prepared(
    case: Case, depth: int, method: str | Rule, memory: str | int | None
) -> tuple[Blocks, Any, Tensor, Tensor]:
    """A model, its attachment if it has one, and a batch."""
    torch.manual_seed(0)
    model, (inputs, targets) = case.build(depth, case.width), case.data()
    attachment = None
    if method == "bp":
        model.checkpoints = memory == "checkpoint"
    else:
        attachment = attach(model, method, points=case.points, memory=memory)
    return model, attachment, inputs, targets


def stepper(case: Case, depth: int, method: str | Rule, memory: str | int | None) -> Step:
    """A training step."""
    model, attachment, inputs, targets = prepared(case, depth, method, memory)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        if attachment is not None:
            attachment.target = targets
        sgd_step(model, optimizer, inputs, targets)

    return step


def activations(case: Case, depth: int, method: str | Rule, memory: str | int | None) -> int:
    """Peak bytes of a forward and a backward pass; gradients were there before."""
    model, attachment, inputs, targets = prepared(case, depth, method, memory)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def step() -> None:
        if attachment is not None:
            attachment.target = targets
        loss(model, inputs, targets).backward()

    step()  # draws the feedback, and learns what passes look like
    return peak_bytes(step)


def depth_in(room: int, peaks: dict[int, int]) -> float:
    """How many blocks fit, from the peaks at the two largest depths, of which what comes before is a straight line."""
    (low, at_low), (high, at_high) = sorted(peaks.items())[-2:]
    each = max((at_high - at_low) / (high - low), 1.0)
    return high + (room - at_high) / each


def timed(case: Case, rounds: int) -> dict[str, float]:
    """Ratios of step times."""
    steps = {way: stepper(case, case.timed, *WAYS[way]) for way in case.ways}
    times = interleave(steps, rounds, warm_up=2)
    found = {f"ms, {way}": 1e3 * sorted(times[way])[rounds // 2] for way in case.ways}
    found |= {f"time, {way} over bp": ratio(times, way, "bp") for way in case.ways if way != "bp"}
    found["time, replay over bp"] = ratio(times, "dfa, replay", "bp")
    found["time, replay over checkpoint"] = ratio(times, "dfa, replay", "bp, checkpoint")
    if "drtp, forward" in times:
        found["time, forward over bp"] = ratio(times, "drtp, forward", "bp")
    return found


def grown(case: Case, depths: Sequence[int]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Peak memory by contestant and depth, and its ratios."""
    peaks = {way: {depth: activations(case, depth, *WAYS[way]) for depth in depths} for way in case.ways}
    rows = [
        {"model": case.name, "contestant": way} | {f"MiB at {d}": round(peaks[way][d] / 2**20, 3) for d in depths}
        for way in case.ways
    ]
    at = 32 if 32 in depths else max(depths)
    found = {
        "memory, replay over bp": peaks["dfa, replay"][at] / peaks["bp"][at],
        "memory, deepest over shallowest": peaks["dfa, replay"][max(depths)] / peaks["dfa, replay"][min(depths)],
        "memory, checkpoint, deepest over shallowest": peaks["bp, checkpoint"][max(depths)]
        / peaks["bp, checkpoint"][min(depths)],
    }
    if case.build is perceptron and len(depths) > 1:
        for name, gradient in (("", 0), (", gradients kept", 4 * case.width**2)):
            fits = [depth_in(ROOM, {d: peak + d * gradient for d, peak in peaks[way].items()}) for way in ENDS]
            found[f"depth in 2 GiB{name}, replay over bp"] = fits[0] / fits[1]
    return rows, found


def budget_curve(case: Case, shares: Sequence[float], rounds: int) -> dict[float, float]:
    """Step time over backpropagation's, by the share of DFA's graphs that is kept."""
    depth = case.timed
    whole = activations(case, depth, "dfa", None)
    steps = {str(share): stepper(case, depth, "dfa", int(share * whole)) for share in shares}
    steps["bp"] = stepper(case, depth, "bp", None)
    times = interleave(steps, rounds, warm_up=2)
    return {share: ratio(times, str(share), "bp") for share in shares}


def judged(case: Case, found: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Ratios beside their targets."""
    return {
        name: {"is": round(value, 3)} | ({"target": case.targets[name]} if name in case.targets else {})
        for name, value in found.items()
    }


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    keep_freed_memory()  # else a step that allocates little has no page faults, and one that allocates much has
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    budgets: dict[float, float] = {}
    for number in config.cases:
        case = cases(config.quick)[number]
        print(f"measuring {case.name}", flush=True)
        found = timed(case, config.rounds)
        of_case, memory = grown(case, config.depths)
        rows += [
            row | {"ratio to BP": round(found.get(f"time, {row['contestant']} over bp", 1.0), 3)} for row in of_case
        ]
        summary[case.name] = judged(case, memory | found)
        if case.build is perceptron:
            budgets = budget_curve(case, config.budgets, config.rounds)
            summary["step time over bp, by share of the graphs kept"] = {s: round(r, 3) for s, r in budgets.items()}
    show(rows)
    if config.out is not None:
        save(config.out, "cpu", rows)
        config.out.with_suffix(".png").write_bytes(picture(rows, config.depths, budgets))
    print(json.dumps(summary))


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
