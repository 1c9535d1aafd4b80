"""The picture of what a step costs: every rule's step time over backpropagation's, on every task's model.

    python -m benchmarks.ratios_picture

Drawn from `results/benchmarks/`, so what `python -m benchmarks` measured; nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import cli
from harness.files import write_whole
from harness.methods import colour, known, label
from harness.report.figures import WIDEST, canvas, png

PANELS = {"all.json": "two cores", "all-h200.json": "a GPU"}


@dataclass(frozen=True)
class Config:
    """Draw every rule's step time over backpropagation's from committed measurements."""

    results: Path = Path("results/benchmarks")
    """Where `python -m benchmarks` wrote its numbers."""
    out: Path = Path("docs/ratios.png")
    """The picture."""


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows about a training step by a rule of the library, backpropagation aside; one a model and contestant."""
    found = {(row["model"], row["contestant"]): row for row in reversed(rows) if rule(row) in known()}
    return [row for row in reversed(found.values()) if rule(row) != "bp" and "evaluation" not in row["model"]]


def rule(row: Mapping[str, Any]) -> str:
    """The rule of a contestant, such as "dfa" of "dfa, macro"."""
    return str(row["contestant"]).partition(",")[0]


def picture(panels: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """A panel a machine: models below one another, a dot a rule, a bar where counting products sets the limit.

    Args:
        panels: What the machine is called, to the rows that were measured on it.
    """
    most = max(len({row["model"] for row in ratios(rows)}) for rows in panels.values())
    figure = canvas(WIDEST, 1.4 + 0.34 * most)
    for number, (name, rows) in enumerate(panels.items(), start=1):
        _draw(figure.add_subplot(1, len(panels), number), name, ratios(rows))
    found = {text: mark for axes in figure.axes for mark, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found, loc="outside lower center", ncols=len(found), frameon=False)
    return png(figure)


def _draw(axes: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    models = list(dict.fromkeys(row["model"] for row in rows))
    for row in rows:
        height = models.index(row["model"])
        ink = colour(rule(row))
        axes.plot(row["ratio to BP"], height, "o", color=ink, label=label(rule(row)), markersize=6)
        if row["limit"] is not None:
            axes.plot(row["limit"], height, "|", color="black", markersize=11, label="limit by counting products")
    axes.axvline(1.0, color="#444444", linewidth=1.2, label="BP")
    axes.set_yticks(range(len(models)), [short(model) for model in models], fontsize="small")
    axes.set(title=f"step time over BP's, {name}", ylim=(len(models) - 0.5, -0.5))


def short(model: str) -> str:
    """A model's name without its sizes of batch, vocabulary and input.

    Example:
        >>> short("Transformer 6 x d 512, vocabulary 8000, 8 x 128 tokens")
        'Transformer 6 x d 512'
    """
    return model.partition(", ")[0]


def main(config: Config) -> None:
    """Draw the machines whose numbers are there."""
    panels = {}
    for file, name in PANELS.items():
        if (path := config.results / file).exists():
            panels[name] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    write_whole(config.out, picture(panels))
    print(config.out)


if __name__ == "__main__":
    cli.run(Config, main)
