"""Step time of every method against backpropagation: `python -m benchmarks.step_time`.

One step is forward, backward and SGD. The methods of a model take turns in one run, and a ratio is the median over
rounds of the ratio within a round. Beside it stands the limit that counting matrix products sets:

    backpropagation does three products per layer: the output, the weight's gradient, the input's gradient;
    a broadcasting method does the first two, the third only inside a block, and one projection for all points.

The rest of a step (activations, optimizer, attention) is the same for both and not counted, so a limit can be beaten
where backpropagation spends time on more than products. What a DFA step costs beside products shows against the row
`dfa, by hand` of the perceptrons: the same without a library (`benchmarks.by_hand`).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.allocations import peak_bytes
from benchmarks.by_hand import NAME, ByHand
from benchmarks.environment import save
from benchmarks.models import PostNormTransformer, PreNormTransformer, mlp, sgd_step
from benchmarks.timing import Step, interleave, ratio
from harness.methods import rule_of
from tinydfa import Method, attach


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, its data and what a DFA step on it may cost."""

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], tuple[Tensor, Tensor]]
    points: tuple[str, ...]
    output: str | None
    limit: float  # DFA over backpropagation, counting products
    target: float  # what we hold ourselves to
    rounds: int
    methods: tuple[str, ...] = tuple(Method)
    by_hand: Callable[[nn.Module], nn.Module] | None = (
        None  # makes the model one that trains by DFA without the library
    )


def mlp_case(batch: int, *widths: int, target: float, rounds: int) -> Case:
    """A perceptron on random vectors with a point after every hidden activation."""
    points = tuple(str(2 * hidden + 1) for hidden in range(len(widths) - 2))
    return Case(
        name=f"MLP {'-'.join(map(str, widths))}, batch {batch}",
        build=lambda: mlp(*widths),
        batch=lambda: (torch.randn(batch, widths[0]), torch.randint(0, widths[-1], (batch,))),
        points=points,
        output=None,
        limit=mlp_limit(widths),
        target=target,
        rounds=rounds,
        by_hand=lambda net: ByHand(cast(nn.Sequential, net), points, widths[-1], widths[1]),
    )


def mlp_limit(widths: tuple[int, ...], shared: bool = True) -> float:
    """Products of a DFA step over those of a backpropagation step (per sample, in multiplications).

    Hidden layers that share the feedback matrix share one projection, as wide as the widest of them.
    """
    layers = [before * after for before, after in pairwise(widths)]
    backprop = 3 * sum(layers) - layers[0]  # nobody needs the gradient of the data
    hidden = widths[1:-1]
    dfa = 2 * sum(layers) + widths[-1] * (max(hidden) if shared else sum(hidden))
    return dfa / backprop


def transformer_case(rounds: int, vocabulary: int = 8000, width: int = 512, blocks: int = 6) -> Case:
    """Post-norm Transformer with three points a block, the error taken before the vocabulary."""
    batch, length = 8, 64
    return Case(
        name=f"Transformer {blocks} x d {width}, vocabulary {vocabulary}, {batch} x {length} tokens",
        build=lambda: PostNormTransformer(vocabulary, width, blocks),
        batch=lambda: (torch.randint(0, vocabulary, (batch, length)), torch.randint(0, vocabulary, (batch, length))),
        points=("blocks.*.norm1", "blocks.*.up", "blocks.*.norm2"),
        output="body",
        limit=transformer_limit(vocabulary, width, blocks, length),
        target=0.82,
        rounds=rounds,
        methods=tuple(method for method in Method if method is not Method.DRTP),  # targets are as wide as the error,
    )


def transformer_limit(vocabulary: int, width: int, blocks: int, length: int) -> float:
    """As `mlp_limit`, per token. A block has 12 w^2 weights; attention multiplies 2 L w forward, 4 L w backward.

    Under DFA the signal passes one matrix of a block on its way down, attention's output, to reach queries, keys and
    values; the first block's also go on to the embedding. The vocabulary is the same for both.
    """
    square, attention, top = width**2, 6 * length * width, 3 * vocabulary * width
    backprop = blocks * (3 * 12 * square + attention) + top
    dfa = blocks * ((2 * 12 + 1) * square + attention) + top + 3 * square + 4 * square  # embedding, projection
    return dfa / backprop


PRE_NORM = {
    "usual": ("blocks.*",),
    "norms": ("blocks.*.ln_1", "blocks.*.ln_2", "blocks.*.up", "blocks.*"),
}


def gpt2_case(rounds: int, points: str, vocabulary: int = 8000, width: int = 512, blocks: int = 4) -> Case:
    """GPT-2's shape, with a point a block, as is usual, or one before each layer that can be spared its product."""
    batch, length = 8, 64
    return Case(
        name=f"GPT-2 {blocks} x {width}, vocabulary {vocabulary}, {batch} x {length} tokens, points: {points}",
        build=lambda: PreNormTransformer(vocabulary, width, blocks),
        batch=lambda: (torch.randint(0, vocabulary, (batch, length)), torch.randint(0, vocabulary, (batch, length))),
        points=PRE_NORM[points],
        output="ln_f",
        limit=gpt2_limit(vocabulary, width, blocks, length, points),
        target=0.85,
        rounds=rounds,
        methods=(Method.BP, Method.DFA),
    )


def gpt2_limit(vocabulary: int, width: int, blocks: int, length: int, points: str) -> float:
    """As `transformer_limit`. A point at a block's end alone leaves all input gradients inside the block to compute.

    With one at each norm's output and at the activation too, attention's output projection is the only one left.
    """
    square, attention, top = width**2, 6 * length * width, 3 * vocabulary * width
    backprop = blocks * (3 * 12 * square + attention) + top
    inside = 12 if points == "usual" else 1
    projection = (1 if points == "usual" else 4) * square
    return (blocks * ((2 * 12 + inside) * square + attention) + top + projection) / backprop


CASES = {
    "wide": mlp_case(256, 784, 2048, 2048, 2048, 2048, 10, target=0.75, rounds=20),
    "medium": mlp_case(128, 784, 1000, 1000, 1000, 10, target=0.88, rounds=60),
    "small": mlp_case(128, 784, 256, 256, 10, target=1.0, rounds=400),
    "three small": mlp_case(128, 784, 256, 256, 256, 10, target=0.95, rounds=400),
    "tiny": mlp_case(32, 784, 64, 64, 64, 10, target=1.15, rounds=2000),
    "one hidden": mlp_case(100, 784, 1000, 10, target=1.0, rounds=200),
    "transformer": transformer_case(rounds=10),
    "gpt2": gpt2_case(rounds=10, points="usual"),
    "gpt2 norms": gpt2_case(rounds=10, points="norms"),
}


@dataclass(frozen=True)
class Config:
    """Measure step times of all methods."""

    cases: tyro.conf.Positional[tuple[str, ...]] = tuple(CASES)
    """wide, medium, small, "three small", tiny, "one hidden", transformer, gpt2, "gpt2 norms"."""
    threads: int = 2
    device: str = "cpu"
    compile: bool = False
    """Compile every model, backpropagation too."""
    out: Path | None = None
    """Write the numbers to this JSON file as well."""


def stepper(case: Case, method: str, config: Config) -> Callable[[], None]:
    """One training step of `case` by `method`, ready to be called again and again."""
    torch.manual_seed(0)
    model = case.build().to(config.device)
    inputs, targets = (tensor.to(config.device) for tensor in case.batch())
    points = case.points if rule_of(method).cuts else ()
    if method is not Method.BP:  # the reference is the model as it is, with nothing of ours on it
        attachment = attach(model, method, points=points or None, output=case.output if points else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)  # too small to blow up at any width
    runner: Any = torch.compile(model) if config.compile else model

    def step() -> None:
        if method is not Method.BP:
            attachment.target = targets
        sgd_step(runner, optimizer, inputs, targets)

    return step


def floor_stepper(case: Case) -> Callable[[], None]:
    """As `stepper`, of the model by hand."""
    torch.manual_seed(0)
    assert case.by_hand is not None
    model = case.by_hand(case.build())
    inputs, targets = case.batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    return partial(sgd_step, model, optimizer, inputs, targets)


def measure(case: Case, config: Config) -> list[dict[str, Any]]:
    """One row per method, and one for the floor."""
    steps: dict[str, Step] = {str(method): stepper(case, method, config) for method in case.methods}
    if case.by_hand is not None and config.device == "cpu" and not config.compile:
        steps[NAME] = floor_stepper(case)
    times = interleave(steps, case.rounds, device=config.device)
    return [
        {
            "model": case.name,
            "method": name,
            "ms a step": round(statistics.median(times[name]) * 1e3, 2),
            "ratio to BP": round(ratio(times, name, "bp"), 3),
            "limit": round(case.limit, 3) if name == NAME or rule_of(name).broadcasts else None,
            "target": case.target if name == "dfa" else 1.05 if name != NAME and rule_of(name).layerwise else None,
            "peak MiB": round(peak_bytes(step, config.device) / 2**20, 1),
        }
        for name, step in steps.items()
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """The rows as a table on the terminal."""
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row.values()))
    Console(width=140).print(table)


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    rows = [row for name in config.cases for row in measure(CASES[name], config)]
    show(rows)
    if config.out is not None:
        save(config.out, config.device, rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
