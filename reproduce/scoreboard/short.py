"""The scoreboard in short, for READMEs: shares of the way by kind of model, and medians of what a step costs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from harness.methods import known, label
from reproduce.layout import piped
from reproduce.scoreboard.columns import Column
from reproduce.scoreboard.page import NOTHING, Scores, name, percent
from tinydfa.rules.registry import split_options

KINDS: Mapping[str, tuple[str, ...]] = {
    "graphs": ("cora", "citeseer", "pubmed"),
    "click models": ("deepfm-ml-100k", "dcn-ml-100k", "deepfm-teacher", "dcn-teacher"),
    "MLPs": ("fc-mnist", "fc-cifar"),
    "Transformer, macro": ("docs-macro",),
    "micro": ("docs-micro",),
    "radiance fields": ("lego", "fern"),
    "CNNs": ("lenet-cifar", "resnet-cifar"),
}
COSTS = ("step", "memory", "BP passes")
ENDS = ("shallow", "bp")  # of the way
ROWS = 7  # rules that a README has room for
QUOTED = ("dfa", "fdfa", "fitted")


def markdown(columns: Sequence[Column], methods: Sequence[str], found: Scores) -> str:
    """The best rules and DFA as rows, kinds of models as columns."""
    order = ranked(columns, methods, found)
    shown = chosen(order)
    header, rows = grid(columns, shown, found)
    return "\n".join([*piped(header, rows, named=1), "", note(columns, found, shown, order)]) + "\n"


def chosen(order: Sequence[str]) -> list[str]:
    """The best rules, the last of which makes room for DFA: the others are judged by it.

    Example:
        >>> chosen(["fitted", "fdfa", "grape", "les", "las", "usf", "frsf", "dfa"])
        ['fitted', 'fdfa', 'grape', 'les', 'las', 'usf', 'dfa']
    """
    return [*order[: ROWS - 1], "dfa"] if "dfa" in order[ROWS:] else list(order[:ROWS])


def grid(columns: Sequence[Column], methods: Sequence[str], found: Scores) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a rule, its share of the way by kind of model, its costs."""
    kinds = {kind: kept for kind, names in KINDS.items() if (kept := [c for c in columns if c.name in names])}
    rows = []
    for method in methods:
        shares = [share(kept, found, method) for kept in kinds.values()]
        texts = [NOTHING if one is None else percent(one) for one in shares]
        rows.append([name(method), *texts, *costs(columns, found, method)])
    return ["", *kinds, *COSTS], rows


def ranked(columns: Sequence[Column], methods: Sequence[str], found: Scores) -> list[str]:
    """The library's rules between the two ends, by their median share.

    Those that have no share on half of the columns are last. Rules that still lack a run are left out: easy columns
    alone would put them too high.
    """
    medians = {}
    for method in methods:
        scores = [found[column.name][method] for column in columns]
        shares = [score.share for score in scores if score.share is not None]
        done = all(score.why != "not run" for score in scores)
        if shares and done and split_options(method)[0] in known() and method not in ENDS:
            medians[method] = 2 * len(shares) > len(columns), statistics.median(shares)
    return sorted(medians, key=medians.__getitem__, reverse=True)


def share(columns: Sequence[Column], found: Scores, method: str) -> float | None:
    """The mean share of the way over columns in which there is one to go; None if the rule lacks one of them."""
    there = [found[column.name] for column in columns]
    shares = [scores[method].share for scores in there if any(one.share is not None for one in scores.values())]
    numbers = [one for one in shares if one is not None]
    return statistics.fmean(numbers) if numbers and len(numbers) == len(shares) else None


def costs(columns: Sequence[Column], found: Scores, method: str) -> list[str]:
    """Medians over the columns of step time, memory and passes of backpropagation, as ratios to backpropagation's."""
    scores = [found[column.name][method] for column in columns if method in found[column.name]]
    scores = [score for score in scores if score.mean is not None]
    texts = []
    for ratios in ([score.step_ratio for score in scores], [score.memory_ratio for score in scores]):
        numbers = [ratio for ratio in ratios if ratio is not None]
        texts.append(f"{statistics.median(numbers):.2f}" if numbers else NOTHING)
    return [*texts, f"{statistics.median(score.exact for score in scores):.2g}" if scores else NOTHING]


def note(columns: Sequence[Column], found: Scores, shown: Sequence[str], order: Sequence[str]) -> str:
    """What the numbers are."""
    shallow = costs(columns, found, "shallow")
    best = sum(method in order[:ROWS] for method in shown)
    rules = f"{best} rules" if best == len(order) else f"The best {best} of {len(order)} rules"
    beside = ", and DFA" if best < len(shown) else ""
    once = [label(method) for method in shown if fewest_seeds(columns, found, method) == 1]
    few = f" One seed: {'; '.join(once)}." if once else ""
    return (
        f"{rules} by median share{beside}. Shares are means over the models of a kind; costs are medians, as ratios to "
        f"BP (shallow: {shallow[0]} and {shallow[1]}). {NOTHING}: refused by one of them.{few}"
    )


def fewest_seeds(columns: Sequence[Column], found: Scores, method: str) -> int:
    """Of any column that the rule has a number on; 0 if there is none."""
    return min((score.seeds for column in columns if (score := found[column.name][method]).seeds), default=0)


def sentence(columns: Sequence[Column], found: Scores) -> str:
    """What some rules keep, in a sentence."""
    parts = []
    for method in QUOTED:
        scores = [found[column.name][method] for column in columns if method in found[column.name]]
        shares = [score.share for score in scores if score.share is not None]
        if shares:
            exact = statistics.median(score.exact for score in scores)
            passes = f" ({100 * exact:.2g} % of its passes are BP's)" if exact else ""
            parts.append(f"{label(method)} {percent(statistics.median(shares))}{passes}")
    way = "Way from shallow training (0 %) to BP (100 %), median over"
    return f"{way} {len(columns)} models at equal steps: {', '.join(parts)}.\n"
