"""Alignment with backpropagation while a Transformer trains, point by point: the fixed feedback beside learned ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from harness.methods import colour, label
from harness.report.figures import band, png
from harness.report.panels import side_by_side
from harness.run.numbers import alignments
from harness.tables import Cell, RunContext, Table
from harness.tables.results import slim
from reproduce.learned.ablation import FOLDER
from reproduce.scoreboard.columns import COLUMNS, EXACT_EVERY
from reproduce.scoreboard.running import finished
from reproduce.scoreboard.running import run as run_column

COLUMN = COLUMNS["docs-macro"]
METHODS = {
    "dfa": "fixed and random",
    "fitted": f"fitted to one exact pass in {EXACT_EVERY}",
    "fdfa": "estimated by passes with noise",
}
EVERY = 5  # steps between two measurements
EXACT = 0.999  # a cosine


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train the column by a rule, and keep the alignment of every point."""
    every = 2 if context.scale == "quick" else EVERY
    column = replace(COLUMN, options=dict(COLUMN.options) | {"alignment_every": every})
    result = run_column(column, cell.method, column.preset.lr, seed, context)
    kept = alignments(result["curves"])
    steps = result["curves"]["alignment_step"]
    result = finished(column, slim(result, seeds=0))
    metrics = result["metrics"]
    metrics["alignment"] = fmean(map(fmean, kept.values()))
    return slim(result | {"curves": kept | {"alignment_step": steps}}, seeds=seed + 1)


def picture(lines: Sequence[dict[str, Any]]) -> bytes:
    """A panel a point that does not receive its exact gradient, a curve a rule; mean and deviation over seeds."""
    points = [name for name in alignments(lines[0]["result"]["curves"]) if not is_exact(name, lines)]
    figure, panels = side_by_side(len(points), 2.8, 2.8, sharey=True)
    for number, (point, axes) in enumerate(zip(points, panels, strict=True), start=1):
        for method in METHODS:
            curves = [line["result"]["curves"] for line in lines if line["method"] == method]
            if curves:
                band(axes, [c[point] for c in curves], label(method), colour(method), curves[0]["alignment_step"])
        axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
        axes.set(title=f"after block {number}", xlabel="step")
    panels[0].set_ylabel("cosine with backpropagation")
    panels[-1].legend(frameon=False, fontsize="small")
    return png(figure)


def is_exact(point: str, lines: Sequence[dict[str, Any]]) -> bool:
    """Whether a point receives backpropagation's signal by every rule, as the last one does where the error is."""
    return all(min(line["result"]["curves"][point]) > EXACT for line in lines)


ALIGNMENT = Table(
    name="fitted-alignment",
    title="Alignment with backpropagation, mean over training and points",
    task=FOLDER,
    unit="cosine",
    decimals=2,
    cells=tuple(
        Cell(
            row=said,
            column=f"{COLUMN.model}, {COLUMN.title}",
            method=method,
            key=COLUMN.name,
            dataset=COLUMN.dataset,
            metric="alignment",
        )
        for method, said in METHODS.items()
    ),
    source="ours: no paper has such a table",
    run=run,
    notes=(
        f"{COLUMN.length} at learning rate {COLUMN.preset.lr:g}; every {EVERY} steps the mean cosine over the tokens "
        "of a validation batch, at each of four points; the last receives the error itself, so that its cosine is 1.",
    ),
    in_quick=False,
    needs="nothing",
    time="about a minute a run (1 core)",
)
