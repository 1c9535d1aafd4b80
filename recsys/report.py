"""Figures of this task for the report: validation AUC and alignment by epoch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.report import Figure, Section
from harness.report.figures import png
from harness.report.panels import Lines, grouped, legend, lines_with_curves, side_by_side
from harness.report.panels import draw_methods as draw
from harness.run.numbers import alignments
from harness.tables import RunContext
from recsys.preset import MODELS

WHERE = {"adult": "Adult", "ml-100k": "MovieLens-100K", "synthetic": "the teacher's log", "criteo": "Criteo"}


def sections(results_dir: Path, context: RunContext) -> list[Section]:
    """The figures for which there are runs below `results_dir` at the context's scale."""
    folder = results_dir / "recsys"
    trained, shallow, aligned = (
        lines_with_curves(folder / f"{name}.jsonl", context.scale) for name in ("table2", "tableA3", "tableA1")
    )
    figures = (*learning_curves(trained + shallow), *alignment_curves(aligned))
    lead = "How well the models rank rows they have not seen, epoch by epoch, until early stopping ended a run."
    return [Section(title="Click models: curves", lead=lead, figures=figures)] if figures else []


def learning_curves(lines: Lines) -> Iterable[Figure]:
    """Validation AUC by epoch: a figure per data set, a panel per model, a colour per method."""
    for dataset, chosen in grouped(lines, "dataset").items():
        rows = {row: runs for row, runs in grouped(chosen, "row").items() if row in MODELS.values()}
        figure, panels = side_by_side(len(rows), 2.1, 2.8, sharey=True)
        for (row, runs), axes in zip(rows.items(), panels, strict=True):
            draw(axes, runs, "val_auc")
            axes.set(title=row, xlabel="epoch")
        panels[0].set_ylabel("validation AUC")
        legend(figure, panels)
        caption = "Area under the ROC curve on the validation part; mean and one standard deviation over seeds, up to "
        caption += "the epoch where the first of them stopped."
        yield Figure(title=f"Learning curves, {where(dataset)}", caption=caption, image=png(figure))


def alignment_curves(lines: Lines) -> Iterable[Figure]:
    """Mean cosine by epoch: a figure per data set, a panel per model, a line per feedback point."""
    for dataset, chosen in grouped(lines, "dataset").items():
        rows = grouped(chosen, "row")
        figure, panels = side_by_side(len(rows), 2.5, 2.8, sharey=True)
        for (row, runs), axes in zip(rows.items(), panels, strict=True):
            curves = runs[0]["result"]["curves"]
            points = list(alignments(curves))
            for number, name in enumerate(points):
                axes.plot(range(1, len(curves[name]) + 1), curves[name], color=str(0.75 * number / len(points)))
            axes.axhline(0, color="black", linewidth=0.8, linestyle="--")
            axes.set(title=row, xlabel="epoch", ylim=(-0.3, 1.05))
        panels[0].set_ylabel("cosine with backpropagation")
        caption = (
            "Alignment of DFA's gradient with backpropagation's on the last batch of an epoch, seed 0; one line per "
        )
        caption += "feedback point, the darkest nearest to the embeddings."
        yield Figure(title=f"Alignment, {where(dataset)}", caption=caption, image=png(figure))


def where(dataset: str) -> str:
    """The name of a data set in titles."""
    return WHERE.get(dataset, dataset)
