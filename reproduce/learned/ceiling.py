"""How much of backpropagation's signals any F could explain: what `fitted` comes to at best, point by point.

In an exact pass e ``[R, c]`` is the error at the rows of a point and δ ``[R, d]`` what backpropagation brings to it. Of
the sum of the squares of δ a linear map of some regressors x ``[R, k]`` explains the share

    1 - min over M of |δ - x M|² / |δ|²

    best        x = e, which is what a row is sent: no F can do better
    above       x = the error above the last norm, where e is taken below it
    in context  x = e and the sum of the errors of the later tokens of the text, which reach a token through attention
    in force    the F in force, before the pass changes it: the squared cosine of e F with δ, as its size is the
                optimiser's affair

As k regressors explain k of R rows by chance alone, the first two are corrected as an adjusted R² is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from harness.device import pick_device
from harness.methods import rule_of
from harness.tables import Cell, RunContext, Table
from harness.tables.results import make_result
from nlp.model.transformer import Block
from reproduce.learned.ablation import FOLDER
from reproduce.scoreboard.columns import COLUMNS, EXACT_EVERY
from reproduce.scoreboard.running import run as run_column
from tinydfa.rules import Fitted, Seen
from tinydfa.rules.fitted import cosine

SMALLEST = 1e-9  # of the largest eigenvalue: a direction in which regressors do not differ
MEASURES = {
    "best": "best F",
    "above": "from the error above the last norm",
    "in_context": "and later tokens' errors",
    "in_force": "F in force",
}


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is measured on a column of the scoreboard."""

    rate: float  # the best of `fitted` there
    kinds: Mapping[str, str] = field(default_factory=lambda: {"": "hidden layers"})  # of points, by a pattern of names
    tokens: int = 1  # rows of a text, in their order; 1: rows have nothing to do with one another


MACRO = {r"\.point$": "after a block"}
BLOCKS = {r"\.point1$": "after attention", r"\.point2$": "inside the perceptron"} | MACRO
NETWORKS = {
    "docs-macro": Network(rate=0.006, kinds=MACRO, tokens=64),
    "docs-micro": Network(rate=0.004, kinds=BLOCKS, tokens=64),
    "lego": Network(rate=0.00333),
    "fern": Network(rate=0.00333),
    "fc-cifar": Network(rate=0.000167),
    "lenet-cifar": Network(
        rate=0.001,
        kinds={
            r"stages\.0": "after the first pool",
            r"stages\.1": "after the second pool",
            r"stages\.2": "after the mean over positions",
            r"^fc": "last hidden layer",
        },
    ),
    "deepfm-ml-100k": Network(rate=0.009),
    "dcn-ml-100k": Network(rate=0.003),
}


class Share(NamedTuple):
    """What was found at a point in one exact pass: shares of its δ."""

    point: str
    look: int  # of the point, from 0
    best: float
    above: float | None  # None: the error above the last norm is e, or not known
    in_context: float
    in_force: float


@dataclass(frozen=True, repr=False)
class Ceiling(Fitted):
    """`fitted`, which notes in every exact pass how much of each point's signal a linear map of e explains.

    Args:
        tokens: Rows of a text, in their order.
        exact_every, memory, ridge, rows, adapt, exact_between: See `Fitted`.
    """

    name = "fitted"
    tokens: int = 1
    found: ClassVar[list[Share]] = []
    waiting: ClassVar[list[str]] = []  # points whose moments were made, and which are not yet updated
    above_norm: ClassVar[list[Tensor]] = []  # one, if known: the error above the last norm ``[R, c]``, of this pass

    def moments(self, seen: Seen) -> dict[str, Tensor]:
        assert seen.gradient is not None
        error, delta = seen.error.double(), seen.gradient.double()
        x = error if self.tokens == 1 else torch.cat([error, later(error, self.tokens)], dim=1)
        self.waiting.append(seen.name)
        own = {"count": torch.tensor(float(len(x))), "power": delta.square().sum()}
        for above in (noted.double() for noted in self.above_norm):
            own |= {"above": above.T @ above, "above_with_delta": above.T @ delta}
        return own | {"regressors": x.T @ x, "with_delta": x.T @ delta}

    def update(self, feedback: Tensor, moments: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        name, c = self.waiting.pop(0), len(feedback)
        x, with_delta, power = (moments[part] for part in ("regressors", "with_delta", "power"))
        rows, own = float(moments["count"]), {"errors": x[:c, :c], "both": with_delta[:c]}
        look = sum(share.point == name for share in self.found)
        force = float(cosine(feedback.double(), **own, power=power)) ** 2
        best, context = explained(**own, power=power, rows=rows), explained(x, with_delta, power, rows)
        above = None
        if "above" in moments:
            above = explained(moments["above"], moments["above_with_delta"], power, rows)
        self.found.append(Share(name, look, best, above, context, force))
        super().update(feedback, own, memory)


@contextmanager
def noting_the_error_above(noted: list[Tensor]) -> Iterator[None]:
    """Inside this block a Transformer that takes its error below the last norm notes what comes down to that norm."""

    def note(error: Tensor) -> None:
        noted[:] = [error.detach().flatten(0, 1)]

    def look(module: nn.Module, inputs: object, output: Any) -> None:
        if isinstance(module, Block) and module.takes_error and output.requires_grad:
            output.register_hook(note)

    handle = nn.modules.module.register_module_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()
        noted.clear()


def later(error: Tensor, tokens: int) -> Tensor:
    """The sum of the errors of the later tokens of the same text, ``[R, c]``.

    Example:
        >>> later(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), tokens=2).flatten().tolist()
        [2.0, 0.0, 4.0, 0.0]
    """
    texts = error.unflatten(0, (-1, tokens))
    return (texts.sum(dim=1, keepdim=True) - texts.cumsum(dim=1)).flatten(0, 1)


def explained(errors: Tensor, both: Tensor, power: Tensor, rows: float) -> float:
    """The share of δ that the best linear map of regressors x explains, corrected for their number.

    Args:
        errors: xᵀx, ``[k, k]``; x is e, or e and other errors.
        both: xᵀδ, ``[k, d]``.
        power: The sum of the squares of δ.
        rows: R.
    """
    sizes, directions = torch.linalg.eigh(errors)
    kept = sizes > SMALLEST * sizes[-1]
    along = (directions[:, kept].T @ both).square().sum(dim=1) / sizes[kept]
    left = 1.0 - float(along.sum() / power)
    return 1.0 - left * rows / max(rows - int(kept.sum()), 1)


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train a column by fitted, and keep the mean shares of every kind of point over all exact passes but the first."""
    column, network, start = COLUMNS[cell.key], NETWORKS[cell.key], perf_counter()
    quick = context.scale == "quick"
    tokens = column.quick["chunk"] if quick and network.tokens > 1 else network.tokens
    method = (
        f"{Path(__file__).resolve()}:{Ceiling.__name__}(exact_every={2 if quick else EXACT_EVERY}, tokens={tokens})"
    )
    rule = cast(type[Ceiling], type(rule_of(method)))  # the class as it is read from the file
    rule.found.clear()
    with noting_the_error_above(rule.above_norm):
        run_column(column, method, network.rate, seed, context)
    return make_result(
        task=FOLDER,
        model=column.model,
        dataset=cell.dataset,
        method=cell.method,
        seed=seed,
        metrics=by_kind(network, rule.found),
        seconds=perf_counter() - start,
        config={"lr": network.rate, "length": column.length, "exact_every": EXACT_EVERY},
        device=pick_device(context.device),
    )


def by_kind(network: Network, shares: Sequence[Share]) -> dict[str, float]:
    """The mean of every measure over the points of a kind and the exact passes that found an F that was fitted."""
    found = {}
    for pattern, kind in network.kinds.items():
        own = [share for share in shares if share.look > 0 and re.search(pattern, share.point)]
        for measure in MEASURES if own else ():
            values = [getattr(share, measure) for share in own]
            if None not in values:
                found[f"{measure}, {kind}"] = fmean(values)
    return found


def cells() -> tuple[Cell, ...]:
    """A row a kind of point, a column a measure."""
    return tuple(
        Cell(
            row=f"{COLUMNS[name].model}, {COLUMNS[name].title}: {kind}",
            column=said,
            method="fitted",
            key=name,
            dataset=COLUMNS[name].dataset,
            metric=f"{measure}, {kind}",
        )
        for name, network in NETWORKS.items()
        for kind in network.kinds.values()
        for measure, said in MEASURES.items()
        if measure not in ("above", "in_context") or network.tokens > 1
    )


CEILING = Table(
    name="fitted-ceiling",
    title="How much of backpropagation's signal a linear map of the error explains",
    task=FOLDER,
    unit="% of its squares",
    scale=100,
    decimals=0,
    cells=cells(),
    source="ours: no paper has such a table",
    run=run,
    notes=(
        "best F: the linear map from e to the signals of one exact pass, which no F can beat. "
        "From the error above the last norm: if that were sent, in the same passes. "
        "And later tokens' errors: if a token were sent their sum as well. "
        "F in force: the squared cosine of e F with the signals, before the pass changes F.",
        f"The scoreboard's runs by fitted, one exact pass in {EXACT_EVERY}: means over the points of a kind, and over "
        "all exact passes but the first.",
    ),
    in_quick=False,
    needs="CIFAR-10, MovieLens-100K, lego and fern at 100 pixels",
    time="a run of the scoreboard each (1 core)",
)
